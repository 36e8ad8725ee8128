// The part of CPython's stable ABI (PEP 384, limited API 3.11) that the extension modules use.
//
// Declared here rather than taken from Python.h: the layout of these structures and the meaning of
// these functions are fixed for all of CPython 3, so that a build needs no Python headers and gives
// the same bytes whichever CPython the machine has. Names are CPython's own.
//
// All are weak symbols: a C++ program without Python, which runs an exported model, can load the
// extensions for their operators.

#pragma once

#include <cstddef>

#define DETECTRON2_PYTHON_API __attribute__((weak))

extern "C" {

struct PyTypeObject;

struct PyObject {
  std::ptrdiff_t ob_refcnt;
  PyTypeObject* ob_type;
};

using PyCFunction = PyObject* (*)(PyObject* self, PyObject* args);

struct PyMethodDef {
  const char* ml_name;
  PyCFunction ml_meth;
  int ml_flags;
  const char* ml_doc;
};

struct PyModuleDef_Slot {
  int slot;
  void* value;
};

struct PyModuleDef_Base {
  PyObject ob_base;
  PyObject* (*m_init)();
  std::ptrdiff_t m_index;
  PyObject* m_copy;
};

struct PyModuleDef {
  PyModuleDef_Base m_base;
  const char* m_name;
  const char* m_doc;
  std::ptrdiff_t m_size;
  PyMethodDef* m_methods;
  PyModuleDef_Slot* m_slots;
  int (*m_traverse)(PyObject*, int (*)(PyObject*, void*), void*);
  int (*m_clear)(PyObject*);
  void (*m_free)(void*);
};

DETECTRON2_PYTHON_API PyObject* PyModuleDef_Init(PyModuleDef* definition);
DETECTRON2_PYTHON_API int PyModule_AddStringConstant(PyObject* module, const char* name,
                                                     const char* value);
DETECTRON2_PYTHON_API PyObject* PyImport_ImportModule(const char* name);
DETECTRON2_PYTHON_API PyObject* PyObject_GetAttrString(PyObject* object, const char* name);
DETECTRON2_PYTHON_API PyObject* PyUnicode_FromString(const char* text);
DETECTRON2_PYTHON_API PyObject* PyBool_FromLong(long value);
DETECTRON2_PYTHON_API PyObject* PyLong_FromLongLong(long long value);
DETECTRON2_PYTHON_API int PyErr_ExceptionMatches(PyObject* exception);
DETECTRON2_PYTHON_API PyObject* PyErr_Occurred();
DETECTRON2_PYTHON_API void PyErr_SetString(PyObject* exception, const char* text);
DETECTRON2_PYTHON_API void PyErr_Clear();
DETECTRON2_PYTHON_API void Py_DecRef(PyObject* object);

DETECTRON2_PYTHON_API extern PyObject* PyExc_ImportError;
DETECTRON2_PYTHON_API extern PyObject* PyExc_RuntimeError;

}  // extern "C"

namespace detectron2::python {

constexpr int kMethNoArgs = 0x0004;  // METH_NOARGS
constexpr int kModExec = 2;          // Py_mod_exec
constexpr PyModuleDef_Base kModuleDefHead = {{1, nullptr}, nullptr, 0, nullptr};

}  // namespace detectron2::python

#define DETECTRON2_MODULE_INIT extern "C" __attribute__((visibility("default"))) PyObject*
