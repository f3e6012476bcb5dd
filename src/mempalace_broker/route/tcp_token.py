"""Which token opens the broker's TCP listener. Imported late, where TCP is used."""

from __future__ import annotations

from ..errors import UsageError
from ..protocol.record import DiscoveryRecord
from ..protocol.tcp_auth import is_token
from ..system.record_file import RecordFile
from ..system.token_file import VARIABLE, read_token, token_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..system.paths import Context

COPY_THE_TOKEN = (
    "copy what `mempalace-broker token` prints on the broker's machine into a file that only you can read, "
    f"and name it in {VARIABLE}."
)


def find_token(context: Context) -> str:
    """The token for the broker of this palace: from the file that the environment names, else from the record, else
    from the state root; "" where there is none.

    Raises:
        UsageError: a file is there and is not to be trusted, or the one named is not there.
    """
    named = context.env.get(VARIABLE, "").strip()
    if named:
        found = read_token(named, given=True)
        if found is None:
            raise UsageError(f"${VARIABLE} names {named}, which is not there.", hint=COPY_THE_TOKEN)
        return found
    record = RecordFile(context.files.record).read()
    if isinstance(record, DiscoveryRecord) and record.token and is_token(record.token):
        return record.token
    return read_token(token_path(context.files.root)) or ""
