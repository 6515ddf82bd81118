"""
bcc's compiler at work: the distribution's module, kernel headers, and the text.

The module `bcc` of PyPI is a crystal-lattice library; the one meant here comes as
`python3-bpfcc` (Debian, Ubuntu) or `python3-bcc` (Fedora, RHEL), belongs to
/usr/bin/python3, and is found there also from a virtual environment that does not
show the distribution's modules to everybody.

Headers need not be the running kernel's: nothing in the programs is read by them.
They only have to be there for bcc's own includes.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.machinery
import importlib.util
import io
import os
import platform
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pidtrail.errors import SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

PLACES: Final = (
    "/usr/lib/python3/dist-packages",
    *(
        f"/usr/{lib}/python3.{sys.version_info.minor}/site-packages"
        for lib in ("lib", "lib64", "local/lib", "local/lib64")
    ),
)
INSTALL: Final = "install the distribution's package python3-bpfcc (Debian, Ubuntu) or python3-bcc"
HEADERS: Final = "install linux-headers-amd64, linux-headers-generic or kernel-devel; any version"
NAMED: Final = "BCC_KERNEL_SOURCE"
KCONFIG: Final = Path("include/linux/kconfig.h")
TYPES: Final = "#define pt_u32 u32\n#define pt_u64 u64\n#define pt_s32 s32\n"
MOST_SAID: Final = 200
TRACING: Final = 26
TRACE_ITER: Final = 28
RINGBUF: Final = 27
"""include/uapi/linux/bpf.h BPF_PROG_TYPE_TRACING, BPF_TRACE_ITER, BPF_MAP_TYPE_RINGBUF."""


def load_module(places: Sequence[str] = PLACES) -> ModuleType:
    """
    Return the distribution's bcc. Raises SourceUnavailable, also for PyPI's.

    Only this one package is taken from the distribution's folder, which never
    comes onto sys.path: what else is there is none of our business.
    """
    loaded = sys.modules.get("bcc")
    found = None if loaded is not None else importlib.machinery.PathFinder.find_spec("bcc", places)
    foreign = None
    try:
        if loaded is not None or found is None:
            module = importlib.import_module("bcc")
            if not is_right(module):
                foreign = getattr(module, "__file__", "bcc")
        else:
            module = import_from(found)
    except (ImportError, OSError) as error:
        raise SourceUnavailable(f"the Python module bcc does not load: {error}", INSTALL) from error
    if foreign is not None or not is_right(module):
        raise SourceUnavailable(
            f"{foreign or module} is not the BPF Compiler Collection: PyPI's bcc is a"
            " crystal-lattice library",
            f"pip uninstall bcc, and {INSTALL}",
        )
    return module


def is_right(module: ModuleType) -> bool:
    """Tell whether a module called bcc is the BPF Compiler Collection."""
    return hasattr(getattr(module, "BPF", None), "get_syscall_fnname")


def import_from(spec: importlib.machinery.ModuleSpec) -> ModuleType:
    """Import a package from where it was found, and its own modules with it."""
    module = importlib.util.module_from_spec(spec)
    assert spec.loader is not None  # noqa: S101 (PathFinder gives one)
    sys.modules["bcc"] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        for name in [name for name in sys.modules if name.partition(".")[0] == "bcc"]:
            del sys.modules[name]
        raise
    return module


def own_headers(root: Path) -> Path | None:
    """Return where the running kernel's headers are, which bcc finds by itself, or None."""
    build = root / "lib/modules" / os.uname().release / "build"
    return next((own for own in (build, root / "sys/kernel/kheaders.tar.xz") if own.exists()), None)


def header_trees(root: Path = Path("/")) -> list[Path]:
    """
    Return the folders that have kernel headers for bcc, together. Raises SourceUnavailable.

    In this order: what BCC_KERNEL_SOURCE names, the running kernel's (bcc finds them itself, and
    a kernel with CONFIG_IKHEADERS carries them), any other kernel's. Debian splits those in two.
    """
    release = os.uname().release
    named = os.environ.get(NAMED)
    if named is not None:
        if not (Path(named) / KCONFIG).exists():
            raise SourceUnavailable(f"{NAMED}={named} has no {KCONFIG}", HEADERS)
        return [Path(named)]
    if (own := own_headers(root)) is not None:
        return [own]
    for tree in sorted((root / "usr/src").glob("linux-headers-*"), reverse=True):
        common = tree.with_name(f"{tree.name.rpartition('-')[0]}-common")
        parts = [part for part in (tree, common) if part.is_dir()]
        complete = any((part / KCONFIG).exists() for part in parts)
        if complete and (tree / "include/generated").is_dir():
            return parts
    for tree in sorted((root / "usr/src/kernels").glob("*"), reverse=True):
        if (tree / KCONFIG).exists():
            return [tree]
    raise SourceUnavailable(
        f"no kernel headers for bcc, neither of {release} nor of another kernel",
        f"{HEADERS}, or name a folder in {NAMED}",
    )


@contextlib.contextmanager
def headers(root: Path = Path("/")) -> Iterator[Path | None]:
    """
    Yield a folder with kernel headers, None where bcc finds its own. Raises SourceUnavailable.

    Several trees are joined in a folder of links.
    """
    trees = header_trees(root)
    if trees == [own_headers(root)]:
        yield None
    elif len(trees) == 1:
        yield trees[0]
    else:
        with tempfile.TemporaryDirectory(prefix="pidtrail-headers-") as folder:
            merge(trees, Path(folder))
            yield Path(folder)


def merge(trees: Sequence[Path], into: Path) -> None:
    """Make a folder of links in which the headers of several trees are found together."""
    arch = {"x86_64": "x86", "aarch64": "arm64", "ppc64le": "powerpc", "s390x": "s390"}
    machine = platform.machine()
    for place in ("include", f"arch/{arch.get(machine, machine)}/include"):
        (into / place).mkdir(parents=True)
        for tree in trees:
            for entry in (tree / place).glob("*"):
                link = into / place / entry.name
                if not link.is_symlink():
                    link.symlink_to(entry)


def text(name: str) -> str:
    """Return the C text of a program with all it needs."""
    folder = resources.files("pidtrail") / "bpf"
    parts = [(folder / part).read_text(encoding="utf-8") for part in ("event.h", "bcc_common.h")]
    return "\n".join([TYPES, *parts, (folder / f"{name}.c").read_text(encoding="utf-8")])


def compile_text(module: ModuleType, name: str, defines: Sequence[str]) -> Any:
    """Return a loaded bcc.BPF of one program text. Raises SourceUnavailable."""
    with headers() as folder, environment(NAMED, folder), quiet() as said:
        try:
            return module.BPF(text=text(name).encode(), cflags=["-w", *defines])
        except Exception as error:
            raise SourceUnavailable(
                f"bcc cannot compile its program: {str(error)[:MOST_SAID]}",
                first_error(said.getvalue()) or HEADERS,
            ) from error


@contextlib.contextmanager
def environment(name: str, value: Path | None) -> Iterator[None]:
    """Set a variable for a while: libbcc reads it while it compiles."""
    before = os.environ.get(name)
    if value is not None:
        os.environ[name] = str(value)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Keep what clang and libbpf write to descriptor 2 from the user, and yield it afterwards."""
    said = io.StringIO()
    with tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            said.write(file.read().decode("utf-8", "replace"))


def first_error(said: str) -> str | None:
    """Return the first line in which a compiler names an error."""
    return next((line.strip() for line in said.splitlines() if "error:" in line), None)


def has_ring(module: ModuleType) -> bool:
    """Tell whether this kernel has the BPF ring buffer (5.8, or an older one that got it): try."""
    lib = importlib.import_module(f"{module.__name__}.libbcc").lib
    create = getattr(lib, "bcc_create_map", None)
    if create is None:
        return False
    fd = create(RINGBUF, b"pidtrail", 0, 0, os.sysconf("SC_PAGE_SIZE"), 0)
    if fd < 0:
        return False
    os.close(fd)
    return True


class Walk:
    """The task iterator: a BPF program that runs once for each task when its file is read."""

    def __init__(self, module: ModuleType, bpf: Any) -> None:
        self.lib = importlib.import_module(f"{module.__name__}.libbcc").lib
        self.lib.bcc_iter_attach.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32]
        with quiet() as said:
            try:
                program = bpf.load_func(b"bpf_iter__task", TRACING, attach_type=TRACE_ITER)
            except Exception as error:
                raise SourceUnavailable(
                    f"the kernel refuses the task iterator: {error}", first_error(said.getvalue())
                ) from error
        self.link = self.lib.bcc_iter_attach(program.fd, None, 0)
        if self.link < 0:
            raise SourceUnavailable("the kernel does not attach the task iterator (5.8)")

    def read(self) -> bytes:
        """Return what the program wrote in one walk."""
        fd = self.lib.bcc_iter_create(self.link)
        if fd < 0:
            raise SourceUnavailable("the kernel does not begin a walk of its tasks")
        with os.fdopen(fd, "rb", buffering=0) as file:
            return file.read()

    def close(self) -> None:
        """Detach."""
        if self.link >= 0:
            os.close(self.link)
            self.link = -1
