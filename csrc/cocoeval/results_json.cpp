#include "csrc/cocoeval/results_json.h"

#include "csrc/cocoeval/json_number.h"

namespace detectron2 {
namespace {

template <typename T>
void append_list(const T* values, int64_t length, std::string* text) {
  text->push_back('[');
  for (int64_t i = 0; i < length; ++i) {
    if (i > 0) text->append(", ");
    append_json_number(values[i], text);
  }
  text->push_back(']');
}

void append_characters(const uint8_t* begin, const uint8_t* end, std::string* text) {
  text->append(reinterpret_cast<const char*>(begin), end - begin);
}

void append_segmentation(const DetectionColumns& in, int64_t n, std::string* text) {
  text->append(", \"segmentation\": {\"size\": ");
  append_list(in.mask_sizes + 2 * n, 2, text);
  text->append(", \"counts\": \"");
  for (const uint8_t* c = in.mask_codes + in.mask_begin[n]; c < in.mask_codes + in.mask_end[n];
       ++c) {
    if (*c == '\\') text->push_back('\\');
    text->push_back(static_cast<char>(*c));
  }
  text->append("\"}");
}

}  // namespace

void append_results(const DetectionColumns& in, int64_t begin, int64_t end, std::string* text) {
  for (int64_t n = begin; n < end; ++n) {
    const int64_t* id = in.image_id_offsets + in.images[n];
    text->append("{\"image_id\": ");
    append_characters(in.image_ids + id[0], in.image_ids + id[1], text);
    text->append(", \"category_id\": ");
    append_json_number(in.category_ids[n], text);
    if (in.boxes != nullptr) {
      text->append(", \"bbox\": ");
      append_list(in.boxes + n * in.box_length, in.box_length, text);
    }
    text->append(", \"score\": ");
    append_json_number(in.scores[n], text);
    if (in.mask_begin != nullptr) append_segmentation(in, n, text);
    if (in.keypoints != nullptr) {
      text->append(", \"keypoints\": ");
      append_list(in.keypoints + n * in.keypoints_length, in.keypoints_length, text);
    }
    text->append("}, ");
  }
}

}  // namespace detectron2
