"""The command line of mp-shim, compared with what mempalace-mcp accepts."""

from __future__ import annotations

import pytest

from mempalace_broker import __version__
from mempalace_broker.errors import EXIT_USAGE
from mempalace_broker.shim.main import Usage, main, parse_args


@pytest.mark.parametrize(
    ("argv", "found", "ignored"),
    [
        (["--palace", "/p", "--backend=chroma"], {"palace": "/p", "backend": "chroma"}, []),
        (["--pal", "/p", "--read"], {"palace": "/p", "read-only": ""}, []),
        (["--pal=/p"], {"palace": "/p"}, []),
        (["--palace", "/a", "--palace", "/b"], {"palace": "/b"}, []),
        (["--palace", "-", "--backend", "-1"], {"palace": "-", "backend": "-1"}, []),
        (["--palace", "-a b"], {"palace": "-a b"}, []),
        (["--palace", ""], {"palace": ""}, []),
        (["--verbose", "--palace", "/p"], {"palace": "/p"}, ["--verbose"]),
        (["--log-level", "debug", "serve"], {}, ["--log-level", "debug", "serve"]),
        (["--host", "::1", "--port=1"], {}, ["--host", "::1", "--port=1"]),
        (["--collection"], {}, ["--collection"]),
        (["--read-only=yes"], {}, ["--read-only=yes"]),
        (["-v", "-p", "/p"], {}, ["-v", "-p", "/p"]),
        (["--", "--palace", "/p"], {}, ["--palace", "/p"]),
        (["-h"], {"help": ""}, []),
        (["-V", "--transport", "stdio"], {"version": "", "transport": "stdio"}, []),
    ],
)
def test_arguments(argv: list[str], found: dict[str, str], ignored: list[str]) -> None:
    assert parse_args(argv) == (found, ignored)


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["--palace"], "needs a value"),
        (["--palace", "--read-only"], "needs a value"),
        (["--backend", "-x"], "needs a value"),
        (["--p", "/p"], "ambiguous"),
        (["--transport", "http"], "stdio only"),
        (["--trans=http"], "stdio only"),
    ],
)
def test_wrong_usage(argv: list[str], word: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Usage, match=word):
        parse_args(argv)
    assert main(argv) == EXIT_USAGE
    assert word in capfd.readouterr().err


def test_what_is_ignored_is_named_without_its_value(capfd: pytest.CaptureFixture[str]) -> None:
    main(["--token=hunter2", "--key", "hunter3", "--version"])
    told = "mp-shim: ignored, as mempalace-mcp does: --token, --key, 1 other word\n"
    assert capfd.readouterr() == (f"mp-shim {__version__}\n", told)
