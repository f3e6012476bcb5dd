from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devbox.tests.image.checkout import CHOICES, FILES, OTHER, SHA, companions_toml, resolved
from pi_devbox.errors import ConfigError
from pi_devbox.image import ghoutput, plan
from pi_devbox.image.commands import Unit, build_units, choose, publish_units
from pi_devbox.image.fingerprint import Entry
from pi_devbox.image.model import Plan, Sources, TagFact
from pi_devbox.image.recipe import parse

ENTRIES = [Entry(name.encode(), "file", text.encode()) for name, text in sorted(FILES.items())]
SUFFIXES = ("", "-studio")
SOURCES = Sources(
    parse(companions_toml(), "x"),
    [one for one in ENTRIES if one.path != b"devbox/image/Dockerfile.variant"],
    [one for one in ENTRIES if one.path == b"devbox/image/Dockerfile.variant"],
)


def draft(**values: str | None) -> Plan:
    return plan.draft(SOURCES, resolved(**values), CHOICES)


def tags(one: Plan) -> list[str]:
    return [target.tag for target in one.targets]


def facts_of(one: Plan, states: tuple[Any, ...]) -> dict[str, TagFact]:
    return {tag: TagFact(state, "no answer") for tag, state in zip(tags(one), states, strict=True)}


def test_the_same_inputs_make_the_same_plan() -> None:
    again = plan.draft(SOURCES, resolved()[::-1], replace(CHOICES, nonce="another"))
    assert tags(draft()) == tags(again)
    assert [one.args for one in draft().targets] == [one.args for one in again.targets]


@pytest.mark.parametrize(
    ("name", "changed"),
    [("toolkit", [True, True, True]), ("fork", [False, True, True]), ("studio", [False, False, True])],
)
def test_a_moved_companion_changes_the_tags_of_what_contains_it(name: str, changed: list[bool]) -> None:
    after = tags(draft(**{name: OTHER}))
    assert [one != other for one, other in zip(tags(draft()), after, strict=True)] == changed


def _project(**changes: object) -> Callable[[Sources], Sources]:
    return lambda sources: replace(sources, project=msgspec.structs.replace(sources.project, **changes))


def _other_url() -> list[Any]:
    first, *rest = SOURCES.project.companion
    return [msgspec.structs.replace(first, url="https://other.example.org/x"), *rest]


@pytest.mark.parametrize(
    "change",
    [
        _project(image=msgspec.structs.replace(SOURCES.project.image, platforms=["linux/amd64"])),
        _project(base=msgspec.structs.replace(SOURCES.project.base, args={"DECLARED": "x"})),
        _project(companion=_other_url()),
        lambda sources: replace(sources, base=[*sources.base, Entry(b"src/new", "file", b"")]),
    ],
)
def test_whatever_changes_the_base_changes_its_tag(change: Callable[[Sources], Sources]) -> None:
    dockerfile, *rest = sorted(SOURCES.base)
    assert dockerfile.path == b"devbox/image/Dockerfile.base"
    more = replace(SOURCES, base=[dockerfile._replace(content=dockerfile.content + b"ARG DECLARED\n"), *rest])
    before, after = (plan.draft(one, resolved(), CHOICES).base.tag for one in (more, change(more)))
    assert before != after


@given(st.data())
def test_any_change_of_any_input_changes_all_tags(data: st.DataObject) -> None:
    number = data.draw(st.integers(1, len(SOURCES.base) - 1))  # 0 is the Dockerfile, which is read as well
    entry = SOURCES.base[number]
    where = data.draw(st.integers(0, len(entry.content)))
    ways = [
        entry._replace(content=entry.content[:where] + b"\n" + entry.content[where:]),
        entry._replace(content=entry.content[:-1]),
        entry._replace(path=entry.path + b"x"),
        entry._replace(kind="executable"),
        entry._replace(kind="link"),
    ]
    changed = [*SOURCES.base[:number], data.draw(st.sampled_from(ways)), *SOURCES.base[number + 1 :]]
    before, after = (plan.draft(replace(SOURCES, base=base), resolved(), CHOICES) for base in (SOURCES.base, changed))
    assert all(one != other for one, other in zip(tags(before), tags(after), strict=True))


LOST = st.lists(st.sampled_from(["toolkit", "fork", "studio"]), unique=True, min_size=1)
CONTAINS = {"base": {"toolkit"}, "pi": {"fork"}, "studio": {"fork", "studio"}}


@given(LOST, st.tuples(*[st.sampled_from(["present", "absent", "unknown"])] * 3))
def test_an_unresolved_companion_forces_a_build_under_a_tag_that_is_nowhere(
    lost: list[str], states: tuple[str, ...]
) -> None:
    one = draft(**dict.fromkeys(lost))
    again = plan.draft(SOURCES, one.companions, replace(CHOICES, nonce="ffffffffffff"))  # the next run, as unlucky
    by_name = draft(**dict.fromkeys(lost, "main"))
    decided = plan.decide(one, facts_of(one, states), force=False)
    for target in decided.targets:
        if CONTAINS[target.name] & set(lost):
            assert target.build
            assert target.fresh
            assert target.tag.endswith(f"-unresolved-{CHOICES.nonce}")
            assert target.tag not in [*tags(draft()), *tags(by_name), *tags(again)]
    assert len(decided.warnings) >= len(lost)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (("present", "present", "present"), [False, False, False]),
        (("present", "absent", "present"), [False, True, False]),
        (("absent", "present", "present"), [True, True, True]),
        (("unknown", "present", "present"), [True, True, True]),
        (("present", "present", "unknown"), [False, False, True]),
    ],
)
def test_only_what_is_certainly_there_is_not_built(states: tuple[str, ...], expected: list[bool]) -> None:
    decided = plan.decide(draft(), facts_of(draft(), states), force=False)
    assert [target.build for target in decided.targets] == expected
    assert len(decided.warnings) == states.count("unknown")


def test_force_builds_everything_without_old_layers() -> None:
    one = plan.draft(SOURCES, resolved(), replace(CHOICES, force=True))
    decided = plan.decide(one, facts_of(one, ("present",) * 3), force=True)
    assert all(target.build and target.fresh for target in decided.targets)
    assert tags(decided) == tags(draft())


def test_arguments() -> None:
    base, pi, studio = draft(fork=OTHER).targets
    image = f"registry.example.org/me/box:{base.tag}"
    assert base.args == {"TOOLKIT_REF": SHA}
    assert pi.args == {"FORK_REF": OTHER, "BASE_IMAGE": image}
    assert studio.args == {"FORK_REF": OTHER, "BASE_IMAGE": image, "STUDIO_REF": SHA, "STUDIO": "true"}


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("", [["edge"], ["edge-studio"]]),
        ("v1.2.3", [["v1.2.3", "latest"], ["v1.2.3-studio", "latest-studio"]]),
        ("v1.2.3-rc1", [["v1.2.3-rc1"], ["v1.2.3-rc1-studio"]]),
        ("v1.0.0rc1", [["v1.0.0rc1"], ["v1.0.0rc1-studio"]]),
        ("v1.0", [["v1.0"], ["v1.0-studio"]]),
    ],
)
def test_published_tags(release: str, expected: list[list[str]]) -> None:
    one = plan.draft(SOURCES, resolved(), replace(CHOICES, release=release))
    assert [target.publish for target in one.variants] == expected


@pytest.mark.parametrize(
    ("release", "listed", "latest"),
    [
        ("v1.2.3", [], True),
        ("v1.2.3", ["v1.2.3", "v1.2.2-studio", "v1.3.0rc1", "v2.0.0-rc1", "edge", "base-0123"], True),
        ("v1.10.0", ["v1.9.0"], True),
        ("v1.2.3", ["v1.2.10"], False),
        ("1.2.3", ["v2.0.0-studio"], False),
        ("v1.2.3-rc1", ["v1.0.0"], False),
    ],
)
def test_latest_is_the_newest_release(release: str, listed: list[str], latest: bool) -> None:
    one = plan.draft(SOURCES, resolved(), replace(CHOICES, release=release))
    settled = plan.settle_latest(one, release, listed, "")
    published = [f"latest{suffix}" in target.publish for suffix, target in zip(SUFFIXES, settled.variants, strict=True)]
    assert published == [latest, latest]
    assert [target.publish[0] for target in settled.variants] == [release, f"{release}-studio"]
    assert len(settled.warnings) == (not latest and plan.is_final(release))
    assert "latest" not in plan.settle_latest(one, release, [], "no answer").variants[0].publish


def test_a_plan_survives_its_way_through_a_workflow() -> None:
    one = draft(fork=None)
    text = json.dumps(msgspec.to_builtins(one))
    assert plan.read_plan(text, "x") == one
    assert ghoutput.render({"plan": text}) == f"plan={text}\n"


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 1}', '"x"'])
def test_an_invalid_plan(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a plan"):
        plan.read_plan(text, "x")


@pytest.mark.parametrize(
    ("old", "new"),
    [('"devbox/image/Dockerfile.base"', '"--evil"'), ('"linux/amd64"', '"--evil"'), ('"TOOLKIT_REF"', '"--x y"')],
)
def test_a_plan_that_smuggles_an_option(old: str, new: str) -> None:
    text = json.dumps(msgspec.to_builtins(draft()))
    assert old in text
    with pytest.raises(ConfigError, match="is not a plan"):
        plan.read_plan(text.replace(old, new), "x")


def test_a_plan_of_another_release_of_this_program() -> None:
    text = json.dumps(msgspec.to_builtins(draft()))
    with pytest.raises(ConfigError, match="schema 2"):
        plan.read_plan(text.replace('"schema": 1', '"schema": 2'), "x")


@pytest.mark.parametrize("lost", ["", "toolkit", "studio"])
def test_a_plan_of_other_files_is_refused(lost: str) -> None:
    one = draft(**({lost: None} if lost else {}))
    plan.check_unchanged(one, SOURCES)
    with pytest.raises(ConfigError, match="but the files here make it"):
        plan.check_unchanged(one, replace(SOURCES, base=[*SOURCES.base, Entry(b"src/new", "file", b"")]))


def test_a_plan_of_other_variants_is_refused() -> None:
    one = msgspec.structs.replace(draft(), variants=draft().variants[:1])
    with pytest.raises(ConfigError, match="other variants"):
        plan.check_unchanged(one, SOURCES)


def test_a_plan_for_other_platforms_is_of_these_files_still() -> None:
    image = msgspec.structs.replace(SOURCES.project.image, platforms=["linux/arm64"])
    one = plan.draft(_project(image=image)(SOURCES), resolved(), CHOICES)
    plan.check_unchanged(one, SOURCES)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"FROM scratch\nCOPY devbox/image/rootfs other /\n", "copies something that no tag depends on: other"),
        (b"FROM scratch\n", "has no ARG TOOLKIT_REF"),
    ],
)
def test_what_the_dockerfile_and_the_file_disagree_about_is_an_error(text: bytes, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        plan.draft(replace(SOURCES, base=[Entry(b"devbox/image/Dockerfile.base", "file", text)]), resolved(), CHOICES)


def test_resolved_companions_must_be_those_of_the_file() -> None:
    with pytest.raises(ConfigError, match="studio at v1 is not among"):
        plan.draft(SOURCES, resolved()[:2], CHOICES)


# --- commands


def lines(units: list[Unit]) -> list[str]:
    return [" ".join(command.argv) for unit in units for command in unit]


def test_buildx() -> None:
    base, _, studio = draft(studio=None).targets
    assert lines(build_units("buildx", draft(), base, push=True)) == [
        "docker buildx build --platform linux/amd64,linux/arm64 --file devbox/image/Dockerfile.base"
        f" --build-arg TOOLKIT_REF={SHA} --tag registry.example.org/me/box:{base.tag} --push ."
    ]
    [line] = lines(build_units("buildx", draft(), studio, push=True))
    assert "--no-cache" in line  # a layer that cloned "v1" some time ago must not be taken for v1 now
    assert "--pull" not in line
    published = msgspec.structs.replace(studio, publish=["v1", "latest"])
    assert lines(publish_units("buildx", draft(), published)) == [
        "docker buildx imagetools create --tag registry.example.org/me/box:v1 --tag registry.example.org/me/box:latest"
        f" registry.example.org/me/box:{studio.tag}"
    ]


def test_buildah() -> None:
    base = draft().base
    index, image = f"localhost/pi-devbox-index:{base.tag}", f"registry.example.org/me/box:{base.tag}"
    assert lines(build_units("buildah", draft(), base, push=True)) == [
        f"buildah manifest rm {index}",
        "buildah build --platform linux/amd64,linux/arm64 --file devbox/image/Dockerfile.base"
        f" --build-arg TOOLKIT_REF={SHA} --manifest {index} .",
        f"buildah manifest push --all {index} docker://{image}",
        f"buildah manifest rm {index}",
    ]
    published = msgspec.structs.replace(base, publish=["v1"])
    assert lines(publish_units("buildah", draft(), published))[3] == (
        f"buildah manifest push --all {index} docker://registry.example.org/me/box:v1"
    )


def test_a_registry_on_this_machine_has_no_tls() -> None:
    here = msgspec.structs.replace(draft(), image="localhost:5000/me/box")
    published = msgspec.structs.replace(here.base, publish=["v1"])
    for units in (build_units("buildah", here, here.base, push=True), publish_units("buildah", here, published)):
        assert sum("--tls-verify=false" in line for line in lines(units)) == 2
    assert not any("tls" in line for line in lines(build_units("buildah", draft(), draft().base, push=True)))


def test_an_image_that_stays_here_has_one_platform() -> None:
    with pytest.raises(ConfigError, match="can only be pushed"):
        build_units("buildx", draft(), draft().base, push=False)
    one = msgspec.structs.replace(draft(), platforms=["linux/arm64"])
    assert lines(build_units("buildx", one, one.base, push=False))[0].endswith(f"{one.base.tag} --load .")
    assert lines(build_units("buildah", one, one.base, push=False))[0].endswith(f"{one.base.tag} .")


@pytest.mark.parametrize(
    ("wanted", "buildx", "buildah", "expected"),
    [
        ("auto", True, True, "buildx"),
        ("auto", False, True, "buildah"),
        ("buildah", True, False, "buildah"),
        ("buildx", False, False, "buildx"),
    ],
)
def test_which_builder(wanted: str, buildx: bool, buildah: bool, expected: str) -> None:
    assert choose(wanted, buildx=buildx, buildah=buildah) == expected


def test_no_builder() -> None:
    with pytest.raises(ConfigError, match="neither docker"):
        choose("auto", buildx=False, buildah=False)


# --- outputs of a workflow


@given(st.text(max_size=20))
def test_an_output_is_one_line_or_an_error(value: str) -> None:
    try:
        text = ghoutput.render({"key": value})
    except ConfigError:
        assert not (value.isprintable() and value.isascii())
    else:
        assert text == f"key={value}\n"
        assert len(text.splitlines()) == 1


def test_outputs_are_appended(tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.write_text("before=1\n", encoding="utf-8")
    ghoutput.append({"GITHUB_OUTPUT": str(file)}, {"need_base": True, "base_tag": "x"})
    assert file.read_text(encoding="utf-8") == "before=1\nneed_base=true\nbase_tag=x\n"
    with pytest.raises(ConfigError, match="GITHUB_OUTPUT"):
        ghoutput.append({}, {"x": "y"})
    with pytest.raises(ConfigError, match="one line"):
        ghoutput.append({"GITHUB_OUTPUT": str(file)}, {"x": "a\nneed_base=false"})
