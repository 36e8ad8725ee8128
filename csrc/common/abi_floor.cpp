// Keeps the extensions loadable where glibc is 2.28 and libstdc++ is GCC 8's (manylinux_2_28),
// whichever GCC from 11 to 14 compiles them. Each symbol below is newer than that floor and would
// be bound to a versioned one of the build machine; a hidden definition here binds it inside the
// extension.

#include <cmath>
#include <ios>
#include <new>
#include <sstream>

#define DETECTRON2_HIDDEN __attribute__((visibility("hidden")))

extern "C" {

// glibc 2.32. libstdc++'s shared_ptr reads it to leave atomics out while a process has one thread;
// zero says that there may be more, as there always are under PyTorch.
extern DETECTRON2_HIDDEN char __libc_single_threaded;
char __libc_single_threaded = 0;

// exp and pow, GLIBC_2.29. The functions of long double have kept their versions.
DETECTRON2_HIDDEN double detectron2_exp(double value) __asm__("exp");
double detectron2_exp(double value) {
  return static_cast<double>(std::exp(static_cast<long double>(value)));
}
DETECTRON2_HIDDEN double detectron2_pow(double base, double exponent) __asm__("pow");
double detectron2_pow(double base, double exponent) {
  return static_cast<double>(std::pow(static_cast<long double>(base), exponent));
}

// std::__throw_bad_array_new_length, GLIBCXX_3.4.29: what allocators call since GCC 11 when asked
// for more elements than an address space holds.
[[noreturn]] DETECTRON2_HIDDEN void detectron2_throw_bad_array_new_length() __asm__(
    "_ZSt28__throw_bad_array_new_lengthv");
void detectron2_throw_bad_array_new_length() { throw std::bad_array_new_length(); }

// std::ios_base_library_init, GLIBCXX_3.4.32: since GCC 13 <iostream> names it, without calling it,
// to say that libstdc++ itself sets up the standard streams.
DETECTRON2_HIDDEN void detectron2_ios_base_library_init() __asm__("_ZSt21ios_base_library_initv");
void detectron2_ios_base_library_init() {}

// The string streams' default constructors, GLIBCXX_3.4.26. (libtorch_cpu.so has them, so that a
// link against it would not even record that version.) Those that take a mode are older.
DETECTRON2_HIDDEN void detectron2_stringstream(void* stream) __asm__(
    "_ZNSt7__cxx1118basic_stringstreamIcSt11char_traitsIcESaIcEEC1Ev");
void detectron2_stringstream(void* stream) {
  new (stream) std::stringstream(std::ios_base::in | std::ios_base::out);
}
DETECTRON2_HIDDEN void detectron2_ostringstream(void* stream) __asm__(
    "_ZNSt7__cxx1119basic_ostringstreamIcSt11char_traitsIcESaIcEEC1Ev");
void detectron2_ostringstream(void* stream) { new (stream) std::ostringstream(std::ios_base::out); }

}  // extern "C"

// An older libstdc++ does not set them up itself: this does.
static const std::ios_base::Init standard_streams;
