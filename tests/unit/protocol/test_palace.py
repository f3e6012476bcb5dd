"""Which palace a process means, and which files are the same to two processes."""

from __future__ import annotations

from typing import Any

import pytest

from mempalace_broker.protocol.palace import FileView, PalaceIdentity


@pytest.mark.parametrize(("backend", "name"), [(None, "/p"), ("chroma", "/link")])
def test_an_identity_comes_back_as_it_was_sent(backend: str | None, name: str) -> None:
    sent = PalaceIdentity("/p", "/g", "flag", backend, name).as_json()
    assert sent == {"path": "/p", "graph": "/g", "by": "flag", "backend": backend, "name": name}
    assert PalaceIdentity.from_json(sent).as_json() == sent


def test_an_identity_needs_path_and_graph_and_forgives_the_rest() -> None:
    for data in ({}, {"path": "/p"}, {"graph": "/g"}, {"path": 1, "graph": "/g"}, {"path": "/p", "graph": None}):
        with pytest.raises(ValueError, match="needs path and graph"):
            PalaceIdentity.from_json(data)
    found = PalaceIdentity.from_json({"path": "/p", "graph": "/g", "backend": 7, "name": []})
    assert (found.by, found.backend, found.name) == ("default", None, "/p")


@pytest.mark.parametrize(
    ("by", "backend", "options"),
    [
        ("flag", None, ["--palace", "/link"]),
        ("flag", "chroma", ["--palace", "/link", "--backend", "chroma"]),
        ("env", "chroma", ["--backend", "chroma"]),
        ("config", None, []),
    ],
)
def test_only_what_flags_chose_is_named_by_flags_again(by: str, backend: str | None, options: list[str]) -> None:
    assert PalaceIdentity("/p", "/g", by, backend, "/link").options == options


def test_a_view_comes_back_as_it_was_sent() -> None:
    facts = {"boot": "b", "mnt": "mnt:[1]", "dev": 3, "ino": 4, "graph": "3:5", "beside": "3:6", "named": True}
    view = FileView.from_json(facts)
    assert view is not None
    assert view.as_json() == facts
    assert FileView("b", "mnt:[1]", 3, 4, graph="3:5", beside="3:6", named=True).as_json() == facts


@pytest.mark.parametrize("data", [None, [], {}, {"boot": "b"}, {"mnt": "m"}, {"boot": 1, "mnt": "m"}])
def test_what_is_not_a_view(data: object) -> None:
    assert FileView.from_json(data) is None


def test_a_view_without_numbers_sees_no_palace() -> None:
    view = FileView.from_json({"boot": "b", "mnt": "m", "dev": "3", "ino": None})
    assert view is not None
    assert (view.dev, view.ino) == (0, 0)


OWN = FileView("b", "m", 3, 4)


@pytest.mark.parametrize(
    ("change", "kernel", "files", "palace"),
    [
        ({}, True, True, True),
        ({"mnt": "n"}, True, False, True),  # a container that has the palace mounted
        ({"mnt": "n", "dev": 5}, True, False, False),
        ({"ino": 5}, True, True, False),
        ({"ino": 0}, True, True, None),  # it sees none
        ({"boot": "c"}, False, False, None),  # numbers of another kernel mean nothing here
    ],
)
def test_what_two_views_have_in_common(change: dict[str, Any], kernel: bool, files: bool, palace: bool | None) -> None:
    other = FileView(**{"boot": "b", "mnt": "m", "dev": 3, "ino": 4, **change})
    for one, two in ((OWN, other), (other, OWN)):
        assert (one.same_kernel(two), one.same_files(two), one.same_palace(two)) == (kernel, files, palace)
