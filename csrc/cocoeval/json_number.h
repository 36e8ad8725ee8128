// Numbers as JSON writes them.

#pragma once

#include <cstdint>
#include <string>

namespace detectron2 {

// Appends a finite number, with the fewest of 15, 16 or 17 digits that read back as the same
// number, and without zeros at the end.
void append_json_number(double value, std::string* text);

void append_json_number(int64_t value, std::string* text);

}  // namespace detectron2
