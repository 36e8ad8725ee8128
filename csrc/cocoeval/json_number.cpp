#include "csrc/cocoeval/json_number.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

namespace detectron2 {
namespace {

using Wide = unsigned __int128;

// Any double reads back from 17 digits.
constexpr int kMostDigits = 17;
constexpr int64_t kSmallest17Digits = 10000000000000000;
// Between these, all products below fit 128 bits.
constexpr double kLeast = 1e-5;
constexpr double kBeyond = 1e15;
constexpr int kMantissaBits = 52;

Wide power_of_ten(int exponent) {
  Wide power = 1;
  for (int i = 0; i < exponent; ++i) power *= 10;
  return power;
}

struct PowersOfTen {
  static constexpr int kCount = 24;
  Wide power[kCount];
  PowersOfTen() {
    for (int i = 0; i < kCount; ++i) power[i] = power_of_ten(i);
  }
};

// value = mantissa / 2^shift, exactly.
struct Binary {
  int64_t mantissa;
  int shift;
};

Binary to_binary(double value) {
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const auto exponent = static_cast<int>(bits >> kMantissaBits);
  const uint64_t leading = uint64_t{1} << kMantissaBits;
  return {static_cast<int64_t>((bits & (leading - 1)) | leading), 1023 + kMantissaBits - exponent};
}

// Whether digits / 10^scale reads back as the number that is exactly scaled / (10^scale 2^shift):
// it does if it is less than half a unit in the last place away.
bool reads_back(int64_t digits, Wide scaled, Wide unit, const Binary& binary) {
  const Wide candidate = static_cast<Wide>(digits) << binary.shift;
  const Wide distance = candidate > scaled ? candidate - scaled : scaled - candidate;
  // Below a power of two, numbers lie twice as close.
  const bool is_power_of_two = binary.mantissa == int64_t{1} << kMantissaBits;
  return distance * (is_power_of_two ? 4 : 2) < unit;
}

// scaled / 2^shift to the nearest multiple of `unit`, the even one of two.
int64_t rounded(Wide scaled, int shift, int64_t unit) {
  const auto floor = static_cast<int64_t>(scaled >> shift);
  const Wide fraction = scaled - (static_cast<Wide>(floor) << shift);
  const int64_t below = floor / unit * unit;
  // The distance from `below`, and half a unit, both doubled and scaled.
  const Wide distance = ((static_cast<Wide>(floor - below) << shift) + fraction) * 2;
  const Wide half = static_cast<Wide>(unit) << shift;
  const bool is_odd = below / unit % 2 == 1;
  return distance > half || (distance == half && is_odd) ? below + unit : below;
}

void append_decimal(int64_t digits, int scale, std::string* text) {
  char buffer[kMostDigits];
  for (int i = kMostDigits; i > 0; --i) {
    buffer[i - 1] = static_cast<char>('0' + digits % 10);
    digits /= 10;
  }
  const int whole = kMostDigits - scale;  // digits before the point
  int last = kMostDigits;
  while (last > std::max(whole, 0) + 1 && buffer[last - 1] == '0') --last;
  if (whole > 0) {
    text->append(buffer, whole);
    text->push_back('.');
    text->append(buffer + whole, last - whole);
  } else {
    text->append("0.");
    text->append(-whole, '0');
    text->append(buffer, last);
  }
}

void append_rare(double value, std::string* text) {
  char buffer[32];
  std::snprintf(buffer, sizeof(buffer), "%.17g", value);
  // The process may have set a locale with another point.
  for (char* c = buffer; *c != '\0'; ++c) text->push_back(*c == ',' ? '.' : *c);
}

}  // namespace

void append_json_number(double value, std::string* text) {
  static const PowersOfTen powers;
  if (value == 0) {
    text->append(std::signbit(value) ? "-0.0" : "0.0");
    return;
  }
  const double magnitude = std::fabs(value);
  if (magnitude < kLeast || magnitude >= kBeyond) {
    append_rare(value, text);
    return;
  }
  if (value < 0) text->push_back('-');
  const Binary binary = to_binary(magnitude);
  // Scaled by a power of ten, the number has 17 digits before the point.
  int scale = kMostDigits - 1;
  for (double bound = 10; magnitude >= bound; bound *= 10) --scale;
  for (double bound = 1; magnitude < bound; bound /= 10) ++scale;
  Wide scaled = static_cast<Wide>(binary.mantissa) * powers.power[scale];
  if (scaled >> binary.shift < kSmallest17Digits) {
    // The bounds below 1 are themselves rounded.
    scaled *= 10;
    ++scale;
  }
  int64_t digits = rounded(scaled, binary.shift, 1);
  for (const int64_t unit : {100, 10}) {
    const int64_t shorter = rounded(scaled, binary.shift, unit);
    if (reads_back(shorter, scaled, powers.power[scale], binary)) {
      digits = shorter;
      break;
    }
  }
  if (digits >= 10 * kSmallest17Digits) {
    digits /= 10;
    --scale;
  }
  append_decimal(digits, scale, text);
}

void append_json_number(int64_t value, std::string* text) { text->append(std::to_string(value)); }

}  // namespace detectron2
