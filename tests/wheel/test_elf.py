"""The extension modules as the dynamic linker sees them: what they need, and what they offer."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

SYSTEM_LIBRARIES = {
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libstdc++.so.6",
}
# torch loads its libraries privately: only what an extension names itself is searched for symbols.
TORCH_LIBRARIES = {
    "_C_cpu": {"libtorch.so", "libtorch_cpu.so"},
    "_C_cuda": {"libtorch.so", "libtorch_cpu.so", "libtorch_cuda.so"},
}
# No more than what they may need: libtorch brings these in any case.
ALSO_ALLOWED = {"_C_cpu": {"libc10.so"}, "_C_cuda": {"libc10.so", "libc10_cuda.so"}}

# The policy manylinux_2_28 for x86_64, as auditwheel 6 has it.
MANYLINUX_2_28 = {
    "GLIBC": (2, 28),
    "GLIBCXX": (3, 4, 24),
    "CXXABI": (1, 3, 11),
    "GCC": (7, 0, 0),
}

# CPython's stable ABI of 3.11 (Doc/data/stable_abi.dat), as far as an extension of functions and
# constants has a use for it.
STABLE_ABI = {
    *("PyArg_ParseTuple", "PyArg_ParseTupleAndKeywords", "PyArg_UnpackTuple"),
    *("PyBool_FromLong", "PyBytes_FromStringAndSize", "PyCapsule_GetPointer", "PyCapsule_New"),
    *("PyDict_GetItemString", "PyDict_New", "PyDict_SetItemString"),
    *("PyErr_Clear", "PyErr_ExceptionMatches", "PyErr_Fetch", "PyErr_Format", "PyErr_NoMemory"),
    *("PyErr_Occurred", "PyErr_Restore", "PyErr_SetString", "PyErr_WarnEx"),
    *("PyEval_RestoreThread", "PyEval_SaveThread", "PyGILState_Ensure", "PyGILState_Release"),
    *("PyExc_AttributeError", "PyExc_ImportError", "PyExc_IndexError", "PyExc_RuntimeError"),
    *("PyExc_TypeError", "PyExc_UserWarning", "PyExc_ValueError"),
    *("PyFloat_AsDouble", "PyFloat_FromDouble", "PyImport_ImportModule"),
    *("PyList_Append", "PyList_GetItem", "PyList_New", "PyList_SetItem", "PyList_Size"),
    *("PyLong_AsLong", "PyLong_AsLongLong", "PyLong_FromLong", "PyLong_FromLongLong"),
    *("PyModuleDef_Init", "PyModule_AddFunctions", "PyModule_AddIntConstant"),
    *("PyModule_AddObjectRef", "PyModule_AddStringConstant", "PyModule_Create2"),
    *("PyObject_CallFunction", "PyObject_CallObject", "PyObject_GetAttrString"),
    *("PyObject_IsTrue", "PyObject_SetAttrString", "PyObject_Str"),
    *("PySequence_GetItem", "PySequence_Size", "PyTuple_GetItem", "PyTuple_New"),
    *("PyTuple_SetItem", "PyTuple_Size", "PyUnicode_AsUTF8AndSize", "PyUnicode_FromFormat"),
    *("PyUnicode_FromString", "PyUnicode_FromStringAndSize"),
    *("Py_BuildValue", "Py_DecRef", "Py_IncRef", "_Py_Dealloc"),
    *("_Py_FalseStruct", "_Py_NoneStruct", "_Py_TrueStruct"),
}


def module_name(extension: Path) -> str:
    return extension.name.partition(".")[0]


def too_new(version: str) -> bool:
    """Whether a symbol version such as GLIBC_2.32 lies beyond the policy."""
    match = re.fullmatch(r"([A-Z]+)_([0-9.]+)", version)
    if match is None or match[1] not in MANYLINUX_2_28:
        return True
    return tuple(map(int, match[2].split("."))) > MANYLINUX_2_28[match[1]]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("GLIBC_2.28", False),
        ("GLIBC_2.2.5", False),
        ("GLIBC_2.29", True),
        ("GLIBC_PRIVATE", True),
        ("GLIBCXX_3.4", False),
        ("GLIBCXX_3.4.26", True),
        ("CXXABI_1.3.12", True),
        ("OPENSSL_1.1", True),
    ],
)
def test_policy(version: str, expected: bool) -> None:
    assert too_new(version) == expected


def test_needed_libraries(extension: Path, elf: ModuleType) -> None:
    name = module_name(extension)
    needed = set(elf.read_elf(extension).needed)
    assert TORCH_LIBRARIES[name] <= needed
    assert needed - TORCH_LIBRARIES[name] <= SYSTEM_LIBRARIES | ALSO_ALLOWED[name]


def test_names_no_folder_to_search(extension: Path, elf: ModuleType) -> None:
    file = elf.read_elf(extension)
    assert (file.rpath, file.runpath) == (None, None)


def test_symbol_versions_are_those_of_manylinux_2_28(extension: Path, elf: ModuleType) -> None:
    file = elf.read_elf(extension)
    beyond = [
        f"{symbol.name}@{symbol.version} of {symbol.library}"
        for symbol in file.symbols
        if symbol.library and too_new(symbol.version)
    ]
    assert not beyond
    # A version that is asked for but used by no symbol stops the loader all the same.
    assert not [v for versions in file.version_needs.values() for v in versions if too_new(v)]


def test_takes_nothing_unversioned_but_from_torch_and_python(
    extension: Path, elf: ModuleType
) -> None:
    # A C++ runtime symbol that is newer than the policy can hide here: where one of torch's
    # libraries refers to it without a version, the linker copies that, and no version tells.
    stray = [
        symbol.name
        for symbol in elf.read_elf(extension).symbols
        if not symbol.is_defined
        and symbol.binding != "weak"
        and symbol.version is None
        and not re.match(r"_?Py|aoti_torch_|torch_", symbol.name)
    ]
    assert not stray


def test_exports_its_init_function_only(extension: Path, elf: ModuleType) -> None:
    exported = [symbol.name for symbol in elf.read_elf(extension).symbols if symbol.is_exported]
    assert exported == [f"PyInit_{module_name(extension)}"]


def test_uses_the_stable_abi_of_python_only(extension: Path, elf: ModuleType) -> None:
    used = {
        symbol.name
        for symbol in elf.read_elf(extension).symbols
        if not symbol.is_defined and re.match(r"_?Py", symbol.name)
    }
    assert used
    assert used <= STABLE_ABI


def test_loads_without_python(extension: Path, elf: ModuleType) -> None:
    # In a C++ program that runs an exported model, nothing defines these.
    bindings = {
        symbol.binding
        for symbol in elf.read_elf(extension).symbols
        if not symbol.is_defined and re.match(r"_?Py", symbol.name)
    }
    assert bindings == {"weak"}


def test_memory_is_writable_or_executable(extension: Path, elf: ModuleType) -> None:
    segments = elf.read_elf(extension).segments
    assert segments
    both = elf.PF_W | elf.PF_X
    assert not [segment for segment in segments if segment.flags & both == both]
    # Without this header the loader makes the stack executable.
    assert elf.PT_GNU_STACK in [segment.kind for segment in segments]
