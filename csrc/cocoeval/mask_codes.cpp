#include "csrc/cocoeval/mask_codes.h"

#include <algorithm>
#include <cstring>

namespace detectron2 {
namespace {

constexpr int kBitsPerCharacter = 5;
constexpr int kFirstCharacter = 48;
constexpr int kMoreFollow = 1 << kBitsPerCharacter;
constexpr int kSign = 1 << (kBitsPerCharacter - 1);
// 11 characters hold 55 bits; a run of a mask has 31 at most.
constexpr int kMostShift = 10 * kBitsPerCharacter;

// Columns that are turned at a time: enough to use a cache line, few enough to stay in the cache.
constexpr int64_t kColumnsPerTile = 64;

class CodeWriter {
 public:
  explicit CodeWriter(std::vector<uint8_t>* code) : code_(code) { code_->clear(); }

  void add(int64_t run) {
    int64_t value = count_ > 2 ? run - previous_[count_ % 2] : run;
    previous_[count_++ % 2] = run;
    for (bool more = true; more;) {
      int bits = static_cast<int>(value & (kMoreFollow - 1));
      value >>= kBitsPerCharacter;
      more = (bits & kSign) != 0 ? value != -1 : value != 0;
      if (more) bits |= kMoreFollow;
      code_->push_back(static_cast<uint8_t>(bits + kFirstCharacter));
    }
  }

 private:
  std::vector<uint8_t>* code_;
  int64_t count_ = 0;
  int64_t previous_[2] = {0, 0};
};

// The first byte in [begin, count) that is not `value`; each is 0 or 1.
int64_t find_other(const uint8_t* bytes, int64_t begin, int64_t count, uint8_t value) {
  const void* other = std::memchr(bytes + begin, value ^ 1, count - begin);
  return other == nullptr ? count : static_cast<const uint8_t*>(other) - bytes;
}

bool is_blank(const uint8_t* bytes, int64_t count) {
  return find_other(bytes, 0, count, 0) == count;
}

bool is_blank(const uint8_t* bytes, int64_t rows, int64_t columns, int64_t stride) {
  for (int64_t row = 0; row < rows; ++row) {
    if (!is_blank(bytes + row * stride, columns)) return false;
  }
  return true;
}

// Writes columns [left, left + columns) of rows [top, top + rows) one after another.
void turn(const uint8_t* mask, int64_t width, int64_t top, int64_t rows, int64_t left,
          int64_t columns, uint8_t* turned) {
  for (int64_t row = 0; row < rows; ++row) {
    const uint8_t* from = mask + (top + row) * width + left;
    for (int64_t column = 0; column < columns; ++column) turned[column * rows + row] = from[column];
  }
}

}  // namespace

bool decode_mask(const uint8_t* code, int64_t length, int64_t num_pixels,
                 std::vector<PixelRun>* runs) {
  runs->clear();
  int64_t previous[2] = {0, 0};
  int64_t pixel = 0;
  int64_t count = 0;
  for (int64_t at = 0; at < length; ++count) {
    int64_t value = 0;
    int shift = 0;
    for (bool more = true; more; shift += kBitsPerCharacter) {
      if (at == length || shift > kMostShift) return false;
      const int bits = code[at++] - kFirstCharacter;
      if (bits < 0 || bits >= 2 * kMoreFollow) return false;
      value |= static_cast<int64_t>(bits & (kMoreFollow - 1)) << shift;
      more = (bits & kMoreFollow) != 0;
      if (!more && (bits & kSign) != 0) value -= int64_t{1} << (shift + kBitsPerCharacter);
    }
    if (count > 2) value += previous[count % 2];
    if (value < 0 || value > num_pixels - pixel) return false;
    previous[count % 2] = value;
    if (count % 2 == 1 && value > 0) {
      if (!runs->empty() && runs->back().end == pixel) {
        runs->back().end += value;
      } else {
        runs->push_back({pixel, pixel + value});
      }
    }
    pixel += value;
  }
  return pixel == num_pixels;
}

void encode_mask(const uint8_t* mask, int64_t height, int64_t width, std::vector<uint8_t>* code,
                 std::vector<uint8_t>* scratch) {
  CodeWriter writer(code);
  if (height * width == 0) {
    writer.add(0);
    return;
  }
  int64_t top = 0;
  int64_t bottom = height;
  while (top < bottom && is_blank(mask + top * width, width)) ++top;
  while (bottom > top && is_blank(mask + (bottom - 1) * width, width)) --bottom;
  const int64_t rows = bottom - top;

  int64_t run_begin = 0;
  uint8_t value = 0;
  const auto change_at = [&](int64_t pixel) {
    writer.add(pixel - run_begin);
    run_begin = pixel;
    value ^= 1;
  };
  scratch->resize(rows * std::min(width, kColumnsPerTile));
  for (int64_t left = 0; rows > 0 && left < width; left += kColumnsPerTile) {
    const int64_t columns = std::min(kColumnsPerTile, width - left);
    if (is_blank(mask + top * width + left, rows, columns, width)) {
      if (value == 1) change_at(left * height);
      continue;
    }
    turn(mask, width, top, rows, left, columns, scratch->data());
    for (int64_t column = 0; column < columns; ++column) {
      const uint8_t* pixels = scratch->data() + column * rows;
      const int64_t first = (left + column) * height;
      // Rows above and below the object are zeros.
      if (value == 1 && top > 0) change_at(first);
      for (int64_t row = find_other(pixels, 0, rows, value); row < rows;
           row = find_other(pixels, row, rows, value)) {
        change_at(first + top + row);
      }
      if (value == 1 && bottom < height) change_at(first + bottom);
    }
  }
  if (run_begin < height * width) writer.add(height * width - run_begin);
}

int64_t count_pixels(const std::vector<PixelRun>& runs) {
  int64_t count = 0;
  for (const PixelRun& run : runs) count += run.end - run.begin;
  return count;
}

}  // namespace detectron2
