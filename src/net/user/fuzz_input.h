// Takes a fuzzer's input apart; behind its end everything is zero.
#pragma once

#include <vector>

#include "base/bytes.h"

namespace smol::net::user {

class FuzzInput {
 public:
  FuzzInput(const u8* data, std::size_t size) : data_(data), left_(size) {}
  bool done() const { return left_ == 0; }
  template <class T>
  T take() {
    T value{};
    const std::size_t count = std::min(sizeof(T), left_);
    if (count != 0) std::memcpy(&value, data_, count);
    data_ += count;
    left_ -= count;
    return value;
  }
  std::vector<u8> bytes(std::size_t count) {
    count = std::min(count, left_);
    std::vector<u8> result(data_, data_ + count);
    data_ += count;
    left_ -= count;
    return result;
  }

 private:
  const u8* data_;
  std::size_t left_;
};

}  // namespace smol::net::user
