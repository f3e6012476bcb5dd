"""What the guest boots: a Debian kernel and an initramfs with the few modules that it needs.

    python3 tests/vm/build.py FOLDER        leaves FOLDER/vmlinuz and FOLDER/initrd

The rest of the guest's system is the host's own file system, read only. Needs apt (the kernel's package is
downloaded and unpacked, not installed), busybox-static, cpio and kmod.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

META = "linux-image-cloud-amd64"
# in this order, with what they depend on: devices first, file systems after them
MODULES = ("virtio_pci", "virtio_console", "virtio_net", "fuse", "virtiofs", "overlay")
APPLETS = ("sh", "mount", "insmod", "switch_root", "mkdir", "cp", "poweroff")
FOLDERS = ("bin", "modules", "guest", "proc", "sys", "dev", "host", "layer", "new")
GUEST = Path(__file__).resolve().parent / "guest"


def output(*argv: str | Path, cwd: Path | None = None) -> str:
    """What a command prints; it must succeed."""
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, cwd=cwd).stdout


def download(folder: Path) -> str:
    """Unpack the newest kernel package below `folder`; its version."""
    depends = output("apt-cache", "depends", META).split()
    package = next(word for word in depends if word.startswith("linux-image-"))
    if package == META:
        package = depends[depends.index("Depends:") + 1]
    output("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package, cwd=folder)
    (archive,) = folder.glob("*.deb")
    output("dpkg-deb", "-x", archive, folder)
    return package.removeprefix("linux-image-")


def load_order(folder: Path, version: str) -> list[Path]:
    """Files of all modules needed, each after those that it needs."""
    output("depmod", "-b", folder, version)
    files: list[Path] = []
    for module in MODULES:
        shown = output("modprobe", "-d", folder, "-S", version, "--show-depends", module)
        found = [Path(line.split()[1]) for line in shown.splitlines() if line.startswith("insmod ")]
        files += [path for path in found if path not in files]
    return files


def initramfs(folder: Path, modules: list[Path]) -> bytes:
    """The archive that the kernel unpacks at boot."""
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None, "no busybox"
    shutil.copy(busybox, folder / "bin/busybox")
    for applet in APPLETS:
        (folder / "bin" / applet).symlink_to("busybox")
    for module in modules:
        shutil.copy(module, folder / "modules")
    (folder / "modules/order").write_text("".join(f"{module.name}\n" for module in modules))
    shutil.copy(GUEST / "init", folder / "init")
    (folder / "init").chmod(0o755)
    for name in ("stage2", "agent.py"):
        shutil.copy(GUEST / name, folder / "guest")
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    packed = subprocess.run(
        ["cpio", "--quiet", "-o", "-H", "newc"],
        cwd=folder,
        input="\n".join(names).encode(),
        stdout=subprocess.PIPE,
        check=True,
    )
    return packed.stdout


def build(target: Path) -> None:
    """Make both files; each appears whole."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target) as name:
        work = Path(name)
        (work / "package").mkdir()
        version = download(work / "package")
        archive = initramfs(work / "root", load_order(work / "package", version))
        (work / "initrd").write_bytes(archive)
        shutil.copy(work / f"package/boot/vmlinuz-{version}", work / "vmlinuz")
        for file in ("vmlinuz", "initrd"):
            os.replace(work / file, target / file)
    print(f"{target}: kernel {version}, initramfs {len(archive) >> 10} KiB")


if __name__ == "__main__":
    build(Path(sys.argv[1]).resolve())
