// The one header through which the bindings see PyTorch.
//
// It stands on LibTorch's stable ABI alone, so that one binary serves every PyTorch from 2.10 on.
// Bindings use the names of namespace detectron2 below; an at::Tensor flavour for older releases
// would define the same names here, and no binding would change.

#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>

#include "csrc/common/half.h"
#include "csrc/common/parallel_for.h"

namespace detectron2 {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using torch::stable::accelerator::DeviceGuard;

// ---- Errors --------------------------------------------------------------------------------

template <typename... Parts>
[[noreturn]] inline void raise(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

// Raises RuntimeError in Python. Unlike STD_TORCH_CHECK it puts no source file in the message.
// A macro, so that the message is put together only where the check fails.
#define DETECTRON2_CHECK(condition, ...) \
  do {                                   \
    if (!(condition)) {                  \
      ::detectron2::raise(__VA_ARGS__);  \
    }                                    \
  } while (false)

// The name that Python has for the type: "float32".
inline const char* dtype_name(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::Half:
      return "float16";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Bool:
      return "bool";
    default:
      return torch::headeronly::toString(dtype);
  }
}

inline std::string shape_name(const Tensor& tensor) {
  std::ostringstream text;
  text << "(";
  for (int64_t dim = 0; dim < tensor.dim(); ++dim) {
    text << (dim > 0 ? ", " : "") << tensor.size(dim);
  }
  text << (tensor.dim() == 1 ? ",)" : ")");
  return text.str();
}

inline std::string device_name(const Tensor& tensor) {
  if (tensor.is_cpu()) {
    return "cpu";
  }
  const std::string index = std::to_string(tensor.get_device_index());
  return (tensor.is_cuda() ? "cuda:" : "device ") + index;
}

// ---- Argument checks: what is wrong, and what was given --------------------------------------

// A negative entry of `sizes` stands for any size; `shape` is how a message writes them: "(N, 5)".
inline void check_shape(const char* op, const char* name, const Tensor& tensor,
                        std::initializer_list<int64_t> sizes, const char* shape) {
  bool same = tensor.dim() == static_cast<int64_t>(sizes.size());
  int64_t dim = 0;
  for (const int64_t size : sizes) {
    same = same && (size < 0 || tensor.size(dim) == size);
    ++dim;
  }
  DETECTRON2_CHECK(same, op, ": ", name, " must have the shape ", shape, ", got ",
                   shape_name(tensor));
}

inline bool is_supported_float(ScalarType dtype) {
  return dtype == ScalarType::Float || dtype == ScalarType::Double || dtype == ScalarType::Half ||
         dtype == ScalarType::BFloat16;
}

inline void check_float(const char* op, const char* name, const Tensor& tensor) {
  DETECTRON2_CHECK(is_supported_float(tensor.scalar_type()), op, ": ", name,
                   " must be float32, float64, float16 or bfloat16, got ",
                   dtype_name(tensor.scalar_type()));
}

inline void check_same_dtype(const char* op, const char* name, const Tensor& tensor,
                             const char* other_name, const Tensor& other) {
  DETECTRON2_CHECK(tensor.scalar_type() == other.scalar_type(), op, ": ", name, " and ", other_name,
                   " must have the same dtype, got ", dtype_name(tensor.scalar_type()), " and ",
                   dtype_name(other.scalar_type()));
}

inline void check_same_device(const char* op, const char* name, const Tensor& tensor,
                              const char* other_name, const Tensor& other) {
  const bool same = tensor.is_cpu() == other.is_cpu() && tensor.is_cuda() == other.is_cuda() &&
                    tensor.get_device_index() == other.get_device_index();
  DETECTRON2_CHECK(same, op, ": ", name, " and ", other_name, " must be on the same device, got ",
                   device_name(tensor), " and ", device_name(other));
}

// ---- Types -----------------------------------------------------------------------------------

// The type that arithmetic on `dtype` runs in: float64 for itself, float32 for all others.
inline ScalarType compute_dtype(ScalarType dtype) {
  return dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Calls `body` with a zero of the C++ type of `dtype`, which is float32 or float64.
template <typename Body>
void dispatch_compute_dtype(ScalarType dtype, const Body& body) {
  if (dtype == ScalarType::Double) {
    body(double{});
  } else {
    body(float{});
  }
}

// As above, with a zero of the type that kernels store `dtype` in, any of the four.
template <typename Body>
void dispatch_storage_dtype(ScalarType dtype, const Body& body) {
  switch (dtype) {
    case ScalarType::Half:
      return body(Half{});
    case ScalarType::BFloat16:
      return body(BFloat16{});
    default:
      return dispatch_compute_dtype(dtype, body);
  }
}

// `tensor` as a contiguous one of `dtype`; the same tensor where it is that already.
inline Tensor contiguous_as(const Tensor& tensor, ScalarType dtype) {
  const Tensor cast =
      tensor.scalar_type() == dtype ? tensor : torch::stable::to(tensor, std::optional(dtype));
  return cast.is_contiguous() ? cast : torch::stable::contiguous(cast);
}

// An uninitialised tensor on the device of `like`. Cheaper than torch::stable::new_empty, which
// goes through the dispatcher with boxed arguments.
inline Tensor empty_strided(const Tensor& like, int64_t dims, const int64_t* sizes,
                            const int64_t* strides, ScalarType dtype) {
  int32_t device_type = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  const int32_t dtype_code = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      dims, sizes, strides, dtype_code, device_type, like.get_device_index(), &handle));
  return Tensor(handle);
}

template <std::size_t dims>
inline Tensor empty_strided(const Tensor& like, const std::array<int64_t, dims>& sizes,
                            const std::array<int64_t, dims>& strides, ScalarType dtype) {
  return empty_strided(like, static_cast<int64_t>(dims), sizes.data(), strides.data(), dtype);
}

// The same, contiguous, of up to eight dimensions; the dtype of `like` unless another is given.
inline Tensor new_empty(const Tensor& like, std::initializer_list<int64_t> sizes,
                        std::optional<ScalarType> dtype = std::nullopt) {
  std::array<int64_t, 8> strides = {};
  int64_t stride = 1;
  for (std::size_t dim = sizes.size(); dim-- > 0;) {
    strides[dim] = stride;
    stride *= std::max<int64_t>(sizes.begin()[dim], 1);
  }
  return empty_strided(like, static_cast<int64_t>(sizes.size()), sizes.begin(), strides.data(),
                       dtype.has_value() ? *dtype : like.scalar_type());
}

template <typename T>
const T* data_of(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <typename T>
T* mutable_data_of(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// ---- ATen operators that the stable headers do not wrap -----------------------------------------

namespace aten {

// Calls an operator with `num_returns` tensors as its result.
template <std::size_t num_returns, typename... Arguments>
std::array<Tensor, num_returns> call(const char* name, const char* overload,
                                     const Arguments&... arguments) {
  constexpr std::size_t size =
      sizeof...(Arguments) > num_returns ? sizeof...(Arguments) : num_returns;
  std::array<StableIValue, size> stack{torch::stable::detail::from(arguments)...};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher(name, overload, stack.data(), TORCH_ABI_VERSION));
  std::array<Tensor, num_returns> results;
  for (std::size_t i = 0; i < num_returns; ++i) {
    results[i] = torch::stable::detail::to<Tensor>(stack[i]);
  }
  return results;
}

// Indices that sort `values`, (N,), from high to low, equal ones by index; NaN ranks highest.
inline Tensor stable_argsort_descending(const Tensor& values) {
  return call<2>("aten::sort", "stable", values, std::optional<bool>(true), int64_t{0}, true)[1];
}

inline Tensor index_select(const Tensor& tensor, int64_t dim, const Tensor& index) {
  return call<1>("aten::index_select", "", tensor, dim, index)[0];
}

// The stable headers have no sum, but a difference with a factor. Of two dtypes the wider one.
inline Tensor add(const Tensor& tensor, const Tensor& other) {
  return torch::stable::subtract(tensor, other, -1.0);
}

// Products of matrices, (N, A, B) with (N, B, C).
inline Tensor bmm(const Tensor& left, const Tensor& right) {
  return call<1>("aten::bmm", "", left, right)[0];
}

// As above, into `output`, (N, A, C), which may have gaps between its matrices.
inline void bmm_out(const Tensor& left, const Tensor& right, const Tensor& output) {
  call<1>("aten::bmm", "out", left, right, output);
}

// The sum of all elements, (); a Tensor of the same dtype.
inline Tensor sum(const Tensor& tensor) {
  return call<1>("aten::sum", "", tensor, std::optional<ScalarType>())[0];
}

inline Tensor not_equal(const Tensor& left, const Tensor& right) {
  return call<1>("aten::ne", "Tensor", left, right)[0];
}

inline Tensor where(const Tensor& condition, const Tensor& chosen, const Tensor& other) {
  return call<1>("aten::where", "self", condition, chosen, other)[0];
}

inline Tensor masked_select(const Tensor& tensor, const Tensor& mask) {
  return call<1>("aten::masked_select", "", tensor, mask)[0];
}

}  // namespace aten

// ---- Threads and streams -----------------------------------------------------------------------

// PyTorch's thread pool, in the form that kernels take it.
inline void parallel_for(int64_t begin, int64_t end, int64_t grain_size, const RangeBody& body) {
  torch::stable::parallel_for(begin, end, grain_size, body);
}

#ifdef USE_CUDA
// An int64 in memory of the host that a device can write to. From PyTorch's cache of such memory.
inline Tensor empty_pinned_int64() {
  return torch::stable::empty({1}, ScalarType::Long, std::nullopt,
                              torch::stable::Device(torch::headeronly::DeviceType::CPU), true);
}

// PyTorch's current stream of the tensor's device: a cudaStream_t.
inline void* current_cuda_stream(const Tensor& tensor) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return stream;
}
#endif

}  // namespace detectron2
