/* The fields of a tar header. */
#include <stdio.h>
#include <string.h>

#include "guest/tar/tar.h"

bool tar_number(const char* field, size_t size, int64_t* value) {
  const unsigned char* at = (const unsigned char*)field;
  if ((at[0] & 0x80) != 0) { /* GNU: big-endian two's complement, the top bit is only a mark */
    int64_t number = (at[0] & 0x40) != 0 ? -1 : 0;
    for (size_t i = 0; i < size; i++) {
      unsigned char byte = i == 0 ? (unsigned char)((at[0] & 0x7f) | ((at[0] & 0x40) << 1)) : at[i];
      if (number > (INT64_MAX >> 8) || number < (INT64_MIN >> 8)) return false;
      number = (int64_t)((uint64_t)number << 8) | byte;
    }
    *value = number;
    return true;
  }
  size_t i = 0;
  while (i < size && at[i] == ' ') i++;
  int64_t number = 0;
  for (; i < size && at[i] >= '0' && at[i] <= '7'; i++) {
    if (number > (INT64_MAX >> 3)) return false;
    number = number * 8 + (at[i] - '0');
  }
  if (i < size && at[i] != ' ' && at[i] != '\0') return false;
  *value = number;
  return true;
}

bool tar_set_number(char* field, size_t size, int64_t value) {
  bool fits = value >= 0 && (size - 1 >= 21 || (value >> (3 * (size - 1))) == 0);
  uint64_t left = fits ? (uint64_t)value : 0;
  field[size - 1] = '\0';
  for (size_t i = size - 1; i-- > 0;) {
    field[i] = (char)('0' + (left & 7));
    left >>= 3;
  }
  return fits;
}

uint32_t tar_checksum(const struct tar_header* header) {
  const unsigned char* bytes = (const unsigned char*)header;
  const size_t begin = offsetof(struct tar_header, checksum);
  uint32_t sum = 0;
  for (size_t i = 0; i < sizeof *header; i++) {
    sum += i >= begin && i < begin + sizeof header->checksum ? ' ' : bytes[i];
  }
  return sum;
}
