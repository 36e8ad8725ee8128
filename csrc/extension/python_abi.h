// The part of CPython's stable ABI (PEP 384, limited API 3.11) that the extension modules use.
//
// Declared here rather than taken from Python.h: the layout of these structures and the meaning of
// these functions are fixed for all of CPython 3, so that a build needs no Python headers and gives
// the same bytes whichever CPython the machine has. Names are CPython's own.

#pragma once

#include <cstddef>

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

PyObject* PyModuleDef_Init(PyModuleDef* definition);
int PyModule_AddStringConstant(PyObject* module, const char* name, const char* value);
PyObject* PyImport_ImportModule(const char* name);
PyObject* PyObject_GetAttrString(PyObject* object, const char* name);
PyObject* PyUnicode_FromString(const char* text);
PyObject* PyBool_FromLong(long value);
PyObject* PyLong_FromLongLong(long long value);
int PyErr_ExceptionMatches(PyObject* exception);
PyObject* PyErr_Occurred();
void PyErr_SetString(PyObject* exception, const char* text);
void PyErr_Clear();
void Py_DecRef(PyObject* object);

extern PyObject* PyExc_ImportError;
extern PyObject* PyExc_RuntimeError;

}  // extern "C"

namespace detectron2::python {

constexpr int kMethNoArgs = 0x0004;  // METH_NOARGS
constexpr int kModExec = 2;          // Py_mod_exec
constexpr PyModuleDef_Base kModuleDefHead = {{1, nullptr}, nullptr, 0, nullptr};

}  // namespace detectron2::python

#define DETECTRON2_MODULE_INIT extern "C" __attribute__((visibility("default"))) PyObject*
