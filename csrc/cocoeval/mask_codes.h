// COCO's run lengths of masks, and the strings that they travel in.
//
// A mask is read column by column. Its runs are the lengths of stretches of equal pixels, zeros
// first. In the string, each run is a variable-length integer of 5 bits a character, lowest bits
// first: character - 48, of which bit 5 says that more follow, and bit 4 of the last is the sign.
// From the fourth run on, what is written is the difference from the run two before.

#pragma once

#include <cstdint>
#include <vector>

namespace detectron2 {

// A stretch of set pixels, [begin, end), counted column by column.
struct PixelRun {
  int64_t begin;
  int64_t end;
};

// Replaces `runs` by the set pixels of a mask with `num_pixels`. False if the string is not that of
// such a mask: broken off, with other characters, with negative runs, or of another size.
bool decode_mask(const uint8_t* code, int64_t length, int64_t num_pixels,
                 std::vector<PixelRun>* runs);

// Replaces `code` by the string of a mask in row-major order, whose pixels are 0 or 1. `scratch`
// may be anything; it is kept between calls to spare allocations.
void encode_mask(const uint8_t* mask, int64_t height, int64_t width, std::vector<uint8_t>* code,
                 std::vector<uint8_t>* scratch);

int64_t count_pixels(const std::vector<PixelRun>& runs);

}  // namespace detectron2
