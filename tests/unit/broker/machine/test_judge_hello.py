from __future__ import annotations

from typing import Any

import pytest

from mempalace_broker.broker.machine.judge_hello import HelloVerdict, judge_hello
from mempalace_broker.errors import OTHER_PALACE
from mempalace_broker.protocol.hello import hello_request
from mempalace_broker.protocol.palace import FileView, PalaceIdentity

OWN = PalaceIdentity("/p", "/g", "default")


def hello(identity: PalaceIdentity = OWN, **changes: Any) -> dict[str, Any]:
    request = hello_request(session="s", secret="5" * 32, connection=1, identity=identity, client="c", pid=3)
    return {**request["params"], **changes}


def test_the_same_palace_is_served() -> None:
    verdict = judge_hello(hello(), OWN)
    assert (verdict.code, verdict.notice, verdict.graph_refused) == (0, "", "")


@pytest.mark.parametrize("wire", [None, 0, 2, "1", [1]])
def test_another_wire_version_is_refused_with_both_versions(wire: object) -> None:
    verdict = judge_hello(hello(wire=wire), OWN)
    assert verdict.code == OTHER_PALACE
    assert "version 1" in verdict.message
    assert repr(wire) in verdict.message


@pytest.mark.parametrize(
    ("theirs", "what"),
    [
        (PalaceIdentity("/q", "/g", "default"), "palace /p"),
        (PalaceIdentity("/p", "/g", "default", "qdrant"), "backend chroma"),
    ],
)
def test_another_palace_is_refused_with_the_hint(theirs: PalaceIdentity, what: str) -> None:
    verdict = judge_hello(hello(theirs), OWN)
    assert verdict.code == OTHER_PALACE
    assert what in verdict.message
    assert "Hint:" in verdict.message


def test_who_does_not_ask_for_a_backend_takes_ours() -> None:
    own = PalaceIdentity("/p", "/g", "flag", "qdrant")
    assert judge_hello(hello(PalaceIdentity("/p", "/g", "flag")), own).code == 0


@pytest.mark.parametrize(
    ("own", "engine", "theirs", "served"),
    [
        (None, None, "chroma", True),  # mempalace's own default, before the engine has told
        (None, "chroma", "chroma", True),
        (None, "qdrant", "qdrant", True),  # by config.json, or because the palace has it
        (None, "qdrant", "chroma", False),
        (None, None, "qdrant", False),
        ("chroma", None, "chroma", True),
        ("qdrant", "chroma", "chroma", False),  # the engine of a broker that was restarted with another flag
    ],
)
def test_a_backend_is_the_same_whoever_named_it(own: str | None, engine: str | None, theirs: str, served: bool) -> None:
    verdict = judge_hello(
        hello(PalaceIdentity("/p", "/g", "flag", theirs)), PalaceIdentity("/p", "/g", "flag", own), None, engine
    )
    assert (verdict.code == 0) is served


def test_another_graph_is_refused_alone() -> None:
    verdict = judge_hello(hello(PalaceIdentity("/p", "/p/kg", "flag")), OWN)
    assert verdict.code == 0
    assert verdict.notice == verdict.graph_refused
    assert "/p/kg" in verdict.notice


VIEW = FileView("boot", "mnt:[1]", 5, 77)


def from_view(view: FileView, identity: PalaceIdentity = OWN) -> HelloVerdict:
    return judge_hello({**hello(identity), "view": view.as_json()}, OWN, VIEW)


def test_one_view_of_the_files_compares_paths() -> None:
    for unseen in (FileView("boot", "mnt:[1]"), FileView("boot", "mnt:[1]", 5, 78)):
        assert from_view(unseen, PalaceIdentity("/q", "/g", "flag")).code == OTHER_PALACE
    assert from_view(VIEW).same_files


def test_one_palace_has_many_names() -> None:
    """Bind mounts, and the bytes of a path in another locale."""
    same = FileView("boot", "mnt:[1]", 5, 77, graph="5:78", beside="5:78")
    own_view = FileView("boot", "mnt:[1]", 5, 77, graph="5:78", beside="5:78")
    alias = PalaceIdentity("/alias/palace", "/alias/g", "flag")
    verdict = judge_hello({**hello(alias), "view": same.as_json()}, OWN, own_view)
    assert (verdict.code, verdict.notice, verdict.same_files) == (0, "", True)
    elsewhere = FileView("boot", "mnt:[1]", 5, 77, graph="5:79", beside="5:79")
    verdict = judge_hello({**hello(alias), "view": elsewhere.as_json()}, OWN, own_view)
    assert "/alias/g" in verdict.graph_refused
    assert judge_hello({**hello(alias), "view": VIEW.as_json()}, OWN, own_view).graph_refused, "nothing to compare"


def test_another_name_with_other_tunnels_beside_it_is_said() -> None:
    own = PalaceIdentity("/p", "/g", "flag", name="/home/palace")
    own_view = FileView("boot", "mnt:[1]", 5, 77, graph="5:1", beside="5:2")
    view = FileView("boot", "mnt:[1]", 5, 77, graph="5:1", beside="5:3")
    verdict = judge_hello({**hello(PalaceIdentity("/p", "/g", "flag")), "view": view.as_json()}, own, own_view)
    assert (verdict.code, verdict.graph_refused) == (0, "")
    assert "open by the name /home/palace" in verdict.notice
    assert judge_hello({**hello(), "view": VIEW.as_json()}, own, own_view).notice == ""


def test_a_container_under_this_kernel_is_told_by_device_and_inode() -> None:
    verdict = from_view(FileView("boot", "mnt:[2]", 5, 77), PalaceIdentity("/q", "/g", "flag"))
    assert (verdict.code, verdict.same_files, verdict.same_kernel) == (0, False, True)
    assert from_view(FileView("boot", "mnt:[2]", 5, 78)).code == OTHER_PALACE
    assert from_view(FileView("boot", "mnt:[2]")).code == 0


def test_paths_of_another_kernel_are_not_compared() -> None:
    verdict = from_view(FileView("other", "mnt:[1]", 5, 78), PalaceIdentity("/q", "/g", "flag"))
    assert (verdict.code, verdict.same_files, verdict.same_kernel) == (0, False, False)


@pytest.mark.parametrize(
    ("own", "theirs", "refused", "noticed"),
    [
        (("/m/palace", "/m/kg"), ("/c/palace", "/c/kg"), False, False),
        (("/m/palace", "/m/palace/kg"), ("/c/palace", "/c/palace/kg"), False, False),
        (("/m/palace", "/m/kg"), ("/c/palace", "/c/palace/kg"), True, True),
        (("/m/palace", "/m/kg"), ("/c/palace", "/home/dev/.mempalace/kg"), False, True),
        (("/c/palace", "/home/dev/.mempalace/kg"), ("/m/palace", "/m/kg"), True, True),
        (("/c/palace", "/home/dev/.mempalace/kg"), ("/d/palace", "/home/dev/.mempalace/kg"), True, True),
    ],
)
def test_graphs_of_two_views_are_compared_by_their_place_beside_the_palace(
    own: tuple[str, str], theirs: tuple[str, str], refused: bool, noticed: bool
) -> None:
    params = {**hello(PalaceIdentity(*theirs, "flag")), "view": FileView("boot", "mnt:[2]", 5, 77).as_json()}
    verdict = judge_hello(params, PalaceIdentity(*own, "default"), VIEW)
    assert (bool(verdict.graph_refused), bool(verdict.notice)) == (refused, noticed)


NEW = ("/home/me/.config/mempalace/palace", "/home/me/.mempalace/kg")
OLD = ("/Users/me/.mempalace/palace", "/Users/me/.mempalace/kg")
APART = ("/data/palace", "/home/me/.mempalace/kg")


@pytest.mark.parametrize(
    ("own", "theirs", "refused"),
    [
        (NEW, ("/home/dev/.config/mempalace/palace", "/home/dev/.mempalace/kg"), False),
        (NEW, OLD, False),
        (OLD, NEW, False),
        (APART, NEW, True),
        (NEW, ("/p", "/p/kg"), True),
        (("/home/me/.config/mempalace/palace", "/home/dev/.mempalace/kg"), NEW, True),
    ],
)
def test_the_two_folders_of_newer_versions_count_as_one_across_kernels(
    own: tuple[str, str], theirs: tuple[str, str], refused: bool
) -> None:
    for boot, expected in (("elsewhere", refused), ("boot", refused or own == NEW)):
        params = {**hello(PalaceIdentity(*theirs, "default")), "view": FileView(boot, "mnt:[2]").as_json()}
        verdict = judge_hello(params, PalaceIdentity(*own, "default"), VIEW)
        assert bool(verdict.graph_refused) is expected, f"{boot}: a container may have a graph of its own"


@pytest.mark.parametrize("own", [NEW, OLD, APART, ("/data/palace", "/data/palace/kg")])
def test_who_names_a_broker_elsewhere_means_its_graph(own: tuple[str, str]) -> None:
    for theirs in (NEW, OLD, ("/home/me/notes", "/home/me/.mempalace/kg"), ("/p", "/p/kg")):
        params = {**hello(PalaceIdentity(*theirs, "default")), "view": FileView("elsewhere", named=True).as_json()}
        assert judge_hello(params, PalaceIdentity(*own, "config"), VIEW).graph_refused == ""


@pytest.mark.parametrize("view", [None, 7, {}, {"boot": 7, "mnt": ""}, {"boot": "b"}])
def test_a_client_that_tells_no_view_is_taken_for_one_of_ours(view: object) -> None:
    assert judge_hello({**hello(PalaceIdentity("/q", "/g", "flag")), "view": view}, OWN, VIEW).code == OTHER_PALACE


@pytest.mark.parametrize("palace", [None, 7, "x", []])
def test_a_client_without_a_palace_is_served(palace: object) -> None:
    assert judge_hello(hello(palace=palace), OWN).code == 0


@pytest.mark.parametrize("palace", [{}, {"path": 7}, {"path": "/p"}, {"path": "/p", "graph": None}])
def test_an_identity_without_sense_is_refused(palace: object) -> None:
    assert judge_hello(hello(palace=palace), OWN).code == OTHER_PALACE
