// Detections as the objects of COCO's results files.

#pragma once

#include <cstdint>
#include <string>

namespace detectron2 {

// What is left out has a null pointer.
struct DetectionColumns {
  const uint8_t* image_ids;         // as JSON, one after another
  const int64_t* image_id_offsets;  // (num_images + 1)
  const int64_t* images;            // (num_dt)
  const int64_t* category_ids;      // (num_dt)
  int64_t box_length;
  const double* boxes;  // (num_dt, box_length)
  const double* scores;
  const uint8_t* mask_codes;  // mask n is [mask_begin[n], mask_end[n])
  const int64_t* mask_begin;
  const int64_t* mask_end;
  const int64_t* mask_sizes;  // (num_dt, 2): height, width
  int64_t keypoints_length;
  const double* keypoints;  // (num_dt, keypoints_length)
};

// Appends the objects of detections [begin, end), with ", " after each.
void append_results(const DetectionColumns& columns, int64_t begin, int64_t end, std::string* text);

}  // namespace detectron2
