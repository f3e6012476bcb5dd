from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devbox.tests.image.checkout import companions_toml, sources_of
from pi_devbox.errors import EXIT_CONFIG, ConfigError
from pi_devbox.image import dockerfile
from pi_devbox.image.plan import check_dockerfiles
from pi_devbox.image.recipe import arguments_of, parse

REPO = Path(__file__).resolve().parents[3]
GOOD = companions_toml()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('kind = "git"', 'kind = "svn"'),
        ('ref = "main"', 'ref = "--upload-pack=evil"'),
        ('ref = "main"', 'ref = "a b"'),
        ('ref = "main"', 'ref = "main\\n"'),
        ('ref = "main"', 'ref = "a..b"'),
        ('ref = "main"', 'ref = ""'),
        ('url = "https://git', 'url = "ext::sh -c evil'),
        ('url = "https://git', 'url = "-https://git'),
        ('url = "https://git', 'url = "https://user:secret@git'),
        ('build_arg = "FORK_REF"', 'build_arg = "fork-ref"'),
        ('build_arg = "FORK_REF"', 'build_arg = "STUDIO_REF"'),
        ('build_arg = "FORK_REF"', 'build_arg = "BASE_IMAGE"'),
        ('name = "fork"', 'name = "toolkit"'),
        ('where = "base"', 'where = "bass"'),
        ('where = "base"', 'where = "base"\nwhereabouts = 1'),
        ('variants = ["studio"]', 'variants = ["stud"]'),
        ('suffix = "-studio"', 'suffix = ""'),
        ("linux/arm64", "linux arm64"),
        ('inputs = ["devbox/image/rootfs"', 'inputs = ["../../etc"'),
        ('inputs = ["devbox/image/rootfs"', 'inputs = ["/etc"'),
        ('base_arg = "BASE_IMAGE"', ""),
        ("[image]", "[imag"),
    ],
)
def test_mistakes_are_errors_that_name_the_file(old: str, new: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=r"here\.toml") as caught:
        parse(GOOD.replace(old, new), "here.toml")
    assert caught.value.exit_code == EXIT_CONFIG
    assert "secret" not in str(caught.value)


def test_apis_need_owner_and_repository() -> None:
    for url in ("https://github.com/x", "ssh://git@github.com/x/y", "https://github.com/x/y?z"):
        one = ("a", "github", url, "main", "base", "A_REF")
        with pytest.raises(ConfigError, match="OWNER"):
            parse(companions_toml([one]), "here.toml")


def test_the_projects_own_file_fits_its_dockerfiles() -> None:
    """Everything copied is an input, every argument declared, and the addresses cloned are the ones resolved."""
    sources = sources_of(REPO)
    check_dockerfiles(sources)
    for companion in sources.project.companion:
        recipe = sources.project.base if companion.where == "base" else sources.project.variant
        text = (REPO / recipe.dockerfile).read_text(encoding="utf-8")
        assert companion.url in text, companion.name
        assert f"${{{companion.build_arg}}}" in text, companion.name
    assert "MEMPALACE_TOOLKIT_REF" in arguments_of(sources.project, "base")


def test_the_projects_tokens_are_for_hosts_it_asks() -> None:
    project = sources_of(REPO).project
    assert project.tokens == {"gitea.jordbo.se": "GITEA_TOKEN", "github.com": "GITHUB_TOKEN"}


DOCKERFILE = r"""
# syntax=docker/dockerfile:1
ARG BASE=x OTHER
FROM scratch AS a
COPY one two/ /dest/
copy --chmod=755 three /dest
COPY --from=a --chown=1 nothing /dest
COPY ["with space", "/dest"]
ADD https://example.org/x four \
    # a comment in between
    five /dest
RUN --mount=type=cache,target=/c --mount=type=bind,source=six,target=/s --mount=type=bind,target=/all \
    --mount=type=bind,from=a,source=nothing,target=/n echo COPY nothing /x
COPY <<EOF /dest/file
COPY nothing /x
EOF
RUN <<'END' sh
ADD nothing /x
END
COPY src/*.py ./a/../x* . /dest
"""


def test_what_a_dockerfile_takes() -> None:
    assert dockerfile.copied(DOCKERFILE) == [
        *("one", "two/", "three", "with space", "four", "five", "six", "."),
        *("src/*.py", "./a/../x*", "."),
    ]
    assert dockerfile.copied(DOCKERFILE.replace("\n", "\r\n")) == dockerfile.copied(DOCKERFILE)
    assert dockerfile.arguments(DOCKERFILE) == {"BASE", "OTHER"}


@pytest.mark.parametrize(
    ("path", "covered"),
    [
        ("src", True),
        ("./src/", True),
        ("src/a/b", True),
        ("src/*.py", True),
        ("sr*", False),
        ("*", False),
        (".", False),
        ("srcx", False),
        ("src/../other", False),
        ("other", False),
        ("$SRC", False),
    ],
)
def test_what_is_covered_by_inputs(path: str, covered: bool) -> None:
    assert dockerfile.uncovered([path], ["image/x", "src"]) == ([] if covered else [path])


@given(st.text(alphabet='COPYADRUN \\\n"[]<-=#abc/.*', max_size=80))
def test_no_dockerfile_is_too_strange(text: str) -> None:
    dockerfile.arguments(text)
    dockerfile.copied(text)
