// detectron2._C_cuda: importing it registers the CUDA kernels of the operators with PyTorch.
//
// PyTorch's streams come from a pool of 32 that it hands out over and over. What must not share its
// stream with anybody makes one here.

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

#include "csrc/extension/python_abi.h"

namespace detectron2::python {
namespace {

// CUDART_VERSION is 1000 * major + 10 * minor.
int add_cuda_version(PyObject* module) {
  const std::string version = "CUDA " + std::to_string(CUDART_VERSION / 1000) + "." +
                              std::to_string(CUDART_VERSION % 1000 / 10);
  return PyModule_AddStringConstant(module, "cuda_version", version.c_str());
}

PyObject* create_stream(PyObject*, PyObject*) {
  cudaStream_t stream = nullptr;
  const cudaError_t status = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (status != cudaSuccess) {
    PyErr_SetString(PyExc_RuntimeError, cudaGetErrorString(status));
    return nullptr;
  }
  return PyLong_FromLongLong(reinterpret_cast<std::intptr_t>(stream));
}

PyMethodDef methods[] = {
    {"create_stream", create_stream, kMethNoArgs,
     "A new stream of the current device, a cudaStream_t as an int. It is never destroyed."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef_Slot slots[] = {
    {kModExec, reinterpret_cast<void*>(add_cuda_version)},
    {0, nullptr},
};

PyModuleDef module_definition = {
    kModuleDefHead,
    "detectron2._C_cuda",
    "CUDA kernels of torch.ops.detectron2; `cuda_version` is the toolkit that built them.",
    0,
    methods,
    slots,
    nullptr,
    nullptr,
    nullptr,
};

}  // namespace
}  // namespace detectron2::python

DETECTRON2_MODULE_INIT PyInit__C_cuda() {
  return PyModuleDef_Init(&detectron2::python::module_definition);
}
