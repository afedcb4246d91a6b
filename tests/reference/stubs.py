"""Let the Linux x86-64 torch wheel load without the CUDA libraries it is linked against.

That wheel is a CUDA build, and its CUDA libraries are another 3 GB of wheels. None of their functions is
called on a machine that computes on the CPU, but the loader wants every library and every symbol to
exist. One shared library that defines them all, linked under each missing name, satisfies it; a function
that is called after all traps. libcudart and libcupti stay real: torch calls them while it starts.

    python stubs.py SITE_PACKAGES        needs gcc and readelf
"""

import argparse
import pathlib
import re
import subprocess
import tempfile

ROOTS = ("libtorch_python.so", "libtorch_global_deps.so", "libtorch_cuda_linalg.so")
SYSTEM_LIBRARY = re.compile(r"(libc|libm|libdl|librt|libutil|libpthread|libgcc_s|libstdc\+\+|ld-linux.*)\.so\b")
# What the C, C++ and OpenMP runtimes define always carries one of these versions.
SYSTEM_VERSION = re.compile(r"GLIBC|CXXABI|GCC_|GOMP|OMP_")


def readelf(flag, path):
    return subprocess.run(["readelf", "-W", flag, path], capture_output=True, text=True, check=True).stdout


def closure(packages):
    """The present libraries reached from ROOTS, and the names of the absent ones."""
    present = {p.name: p for pattern in ("torch/lib/*.so*", "nvidia/*/lib/*.so*") for p in packages.glob(pattern)}
    reached, absent, todo = set(), set(), list(ROOTS)
    while todo:
        path = present[todo.pop()]
        if path in reached:
            continue
        reached.add(path)
        for name in re.findall(r"\(NEEDED\).*\[(.+)\]", readelf("-d", path)):
            if name in present:
                todo.append(name)
            elif not SYSTEM_LIBRARY.match(name):
                absent.add(name)
    return reached, absent


def undefined(libraries):
    """{symbol: (version or "", is data)} that no library of the closure and no system library defines."""
    wanted, defined = {}, set()
    for path in libraries:
        for line in readelf("--dyn-syms", path).splitlines():
            fields = line.split()
            if len(fields) < 8 or not fields[0].rstrip(":").isdigit():
                continue
            kind, binding, section = fields[3], fields[4], fields[6]
            name, _, version = fields[7].replace("@@", "@").partition("@")
            if section != "UND":
                defined.add(name)
            elif not SYSTEM_VERSION.match(version) and not name.startswith(("Py", "_Py")) and binding != "WEAK":
                wanted[name] = (version, kind in ("OBJECT", "TLS"))
    return {name: value for name, value in wanted.items() if name not in defined}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site_packages", type=pathlib.Path)
    packages = parser.parse_args().site_packages
    libraries, absent = closure(packages)
    if not absent:
        return print("no library is missing")
    symbols = undefined(libraries)
    source = "".join(
        f"char {name}[65536];\n" if data else f"void {name}(void) {{ __builtin_trap(); }}\n"
        for name, (_, data) in symbols.items()
    )
    versions = {}
    for name, (version, _) in symbols.items():
        if version:
            versions.setdefault(version, []).append(name)
    script = "".join(f"{version} {{ global: {'; '.join(names)}; }};\n" for version, names in versions.items())
    stub = packages / "torch" / "lib" / "libcuda_stub.so"
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "stub.c").write_text(source)
        (folder / "stub.map").write_text(script)
        flags = ["-w", "-fno-builtin", "-shared", "-fPIC", f"-Wl,--version-script,{folder / 'stub.map'}"]
        subprocess.run(["gcc", *flags, folder / "stub.c", "-o", stub], check=True)
    for name in sorted(absent):
        link = stub.with_name(name)
        link.unlink(missing_ok=True)
        link.symlink_to(stub.name)
    print(f"{len(symbols)} symbols stand in for {', '.join(sorted(absent))}")


if __name__ == "__main__":
    main()
