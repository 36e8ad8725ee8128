// Sine and cosine of angles in degrees, with the same bits on the host and on the device.
//
// The library functions of the two differ in the last bit, and a product fused with a sum differs
// from a rounded one; either would make the IoU of a pair of boxes, and so a choice that NMS makes,
// depend on where it is computed. Reducing in degrees is exact, and gives 0 and 1 exactly at
// multiples of 90.

#pragma once

#include <type_traits>

#include "csrc/common/host_device.h"

namespace detectron2 {

// a * b rounded by itself: never fused with a sum that it goes into. Host compilers for x86-64 do
// not fuse unless told that the processor can.
template <typename T>
DETECTRON2_HOST_DEVICE T product(T a, T b) {
#ifdef __CUDA_ARCH__
  if constexpr (std::is_same_v<T, double>) {
    return __dmul_rn(a, b);
  } else {
    return __fmul_rn(a, b);
  }
#else
  return a * b;
#endif
}

// `angle`, finite, less its whole turns: in (-360, 360), with its sign, exact for any magnitude.
template <typename T>
DETECTRON2_HOST_DEVICE T wrap_degrees(T angle) {
  T rest = angle < 0 ? -angle : angle;
  if (rest >= 360) {
    // Long division: every difference is exact, for `turns` is at least half of `rest`.
    T turns = 360;
    while (turns <= rest / 2) {
      turns *= 2;
    }
    for (; turns >= 360; turns /= 2) {
      if (rest >= turns) {
        rest -= turns;
      }
    }
  }
  return angle < 0 ? -rest : rest;
}

template <typename T>
struct SineCosine {
  T sine;
  T cosine;
};

// For `degrees` in (-720, 720), to a unit or so in the last place.
template <typename T>
DETECTRON2_HOST_DEVICE SineCosine<T> sine_cosine(T degrees) {
  const T quarters = product(degrees, T(1.0 / 90));
  const int quarter = static_cast<int>(quarters + (degrees < 0 ? T(-0.5) : T(0.5)));
  // In [-45, 45] and exact: both terms are multiples of the last place of `degrees`.
  const T rest = degrees - T(90 * quarter);
  const T x = product(rest, T(0.017453292519943295));  // pi / 180
  const T z = product(x, x);

  // Taylor series: at pi / 4 the first term left out is below the last place of the result.
  T sine;
  T cosine;
  if constexpr (std::is_same_v<T, double>) {
    sine = -1.0 / 1307674368000.0;                      // -1 / 15!
    sine = product(sine, z) + 1.0 / 6227020800.0;       // 1 / 13!
    sine = product(sine, z) - 1.0 / 39916800.0;         // -1 / 11!
    sine = product(sine, z) + 1.0 / 362880.0;           // 1 / 9!
    cosine = 1.0 / 20922789888000.0;                    // 1 / 16!
    cosine = product(cosine, z) - 1.0 / 87178291200.0;  // -1 / 14!
    cosine = product(cosine, z) + 1.0 / 479001600.0;    // 1 / 12!
    cosine = product(cosine, z) - 1.0 / 3628800.0;      // -1 / 10!
    cosine = product(cosine, z) + 1.0 / 40320.0;        // 1 / 8!
  } else {
    sine = T(1.0 / 362880.0);
    cosine = T(1.0 / 40320.0);
  }
  sine = product(sine, z) - T(1.0 / 5040.0);
  sine = product(sine, z) + T(1.0 / 120.0);
  sine = product(sine, z) - T(1.0 / 6.0);
  sine = product(product(sine, z), x) + x;
  cosine = product(cosine, z) - T(1.0 / 720.0);
  cosine = product(cosine, z) + T(1.0 / 24.0);
  cosine = product(cosine, z) - T(0.5);
  cosine = product(cosine, z) + T(1);

  switch (quarter & 3) {
    case 0:
      return {sine, cosine};
    case 1:
      return {cosine, -sine};
    case 2:
      return {-sine, -cosine};
    default:
      return {-cosine, sine};
  }
}

}  // namespace detectron2
