// detectron2._C_cpu: importing it registers the operators and their CPU kernels with PyTorch.
//
// Its own functions say what it was built with. It needs no CUDA library; the CUDA kernels are in
// detectron2._C_cuda, and what is asked about CUDA is answered by trying to import that module.

#include "csrc/extension/python_abi.h"

#define DETECTRON2_TEXT_OF(value) #value
#define DETECTRON2_TEXT(value) DETECTRON2_TEXT_OF(value)

#if defined(__clang__)
#define DETECTRON2_COMPILER                                      \
  "clang " DETECTRON2_TEXT(__clang_major__) "." DETECTRON2_TEXT( \
      __clang_minor__) "." DETECTRON2_TEXT(__clang_patchlevel__)
#else
#define DETECTRON2_COMPILER "GCC " DETECTRON2_TEXT(__GNUC__) "." DETECTRON2_TEXT(__GNUC_MINOR__)
#endif

namespace detectron2::python {
namespace {

// The version of the CUDA kernels' module, a new reference. nullptr without an error set where that
// module cannot be loaded, as under a PyTorch built without CUDA; nullptr with one set on any other
// failure.
PyObject* import_cuda_version() {
  PyObject* module = PyImport_ImportModule("detectron2._C_cuda");
  if (module == nullptr) {
    if (PyErr_ExceptionMatches(PyExc_ImportError)) {
      PyErr_Clear();
    }
    return nullptr;
  }
  PyObject* version = PyObject_GetAttrString(module, "cuda_version");
  Py_DecRef(module);
  return version;
}

PyObject* get_compiler_version(PyObject*, PyObject*) {
  return PyUnicode_FromString(DETECTRON2_COMPILER);
}

PyObject* get_cuda_version(PyObject*, PyObject*) {
  PyObject* version = import_cuda_version();
  if (version == nullptr && PyErr_Occurred() == nullptr) {
    return PyUnicode_FromString("not available");
  }
  return version;
}

PyObject* has_cuda(PyObject*, PyObject*) {
  PyObject* version = import_cuda_version();
  if (version == nullptr) {
    return PyErr_Occurred() == nullptr ? PyBool_FromLong(0) : nullptr;
  }
  Py_DecRef(version);
  return PyBool_FromLong(1);
}

PyMethodDef methods[] = {
    {"get_compiler_version", get_compiler_version, kMethNoArgs,
     "The compiler of this module and its version, such as 'GCC 12.2'."},
    {"get_cuda_version", get_cuda_version, kMethNoArgs,
     "The toolkit of the CUDA kernels, such as 'CUDA 13.0', or 'not available'."},
    {"has_cuda", has_cuda, kMethNoArgs, "Whether the CUDA kernels can be loaded."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module_definition = {
    kModuleDefHead,
    "detectron2._C_cpu",
    "Operators and CPU kernels of torch.ops.detectron2.",
    0,
    methods,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
};

}  // namespace
}  // namespace detectron2::python

DETECTRON2_MODULE_INIT PyInit__C_cpu() {
  return PyModuleDef_Init(&detectron2::python::module_definition);
}
