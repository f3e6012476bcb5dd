from __future__ import annotations

from mempalace_broker.protocol.hello import HELLO, WIRE_VERSION, hello_request
from mempalace_broker.protocol.palace import PalaceIdentity

OWN = PalaceIdentity("/p", "/g", "default")


def test_the_request_says_who_and_where() -> None:
    assert hello_request(session="s", secret="5" * 32, connection=2, identity=OWN, client="c", pid=3) == {
        "jsonrpc": "2.0",
        "id": HELLO,
        "method": HELLO,
        "params": {
            "wire": WIRE_VERSION,
            "session": "s",
            "secret": "5" * 32,
            "connection": 2,
            "palace": {"path": "/p", "graph": "/g", "by": "default", "backend": None, "name": "/p"},
            "client": "c",
            "pid": 3,
        },
    }


def test_an_identity_survives_the_wire() -> None:
    one = PalaceIdentity("/p", "/g", "env", "b", "/link")
    assert PalaceIdentity.from_json(one.as_json()).as_json() == one.as_json()
    assert PalaceIdentity.from_json({"path": "/p", "graph": "/g", "backend": 7}).as_json() == {
        "path": "/p",
        "graph": "/g",
        "by": "default",
        "backend": None,
        "name": "/p",
    }
