// KVM's system calls, wrapped once. Private to this folder.
#pragma once

// The kernel's headers give a flexible array an empty struct before it. That takes no room in C and
// a byte in C++, which would move the array and change the ioctl's number; so the macro is said
// again, the C++ way.
#include <linux/stddef.h>
#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(type, name) type name[]
// After that only:
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <memory>

#include "base/fd.h"
#include "base/result.h"

namespace smol::hypervisor::kvm {

static_assert(sizeof(kvm_cpuid2) == 8 && sizeof(kvm_msrs) == 8 && sizeof(kvm_msr_list) == 4 &&
              sizeof(kvm_xsave) == 4096);

// The value of the ioctl, or an Error "KVM_X: strerror". EINTR is retried. Not for KVM_RUN.
template <class Argument>
Result<int> call(int fd, unsigned long request, Argument argument, std::string_view name) {
  for (;;) {
    const int value = ::ioctl(fd, request, argument);
    if (value >= 0) return value;
    if (errno != EINTR) return std::unexpected(Error::last_errno(name));
  }
}

#define KVM_CALL(fd, request, argument) \
  ::smol::hypervisor::kvm::call(fd, request, argument, #request)
// In a function that returns a Result: the failure is returned, the value dropped.
#define KVM_TRY(fd, request, argument)                                  \
  do {                                                                  \
    if (auto kvm_result = KVM_CALL(fd, request, argument); !kvm_result) \
      return std::unexpected(std::move(kvm_result).error());            \
  } while (0)

// A KVM structure that ends in a flexible array of `count` elements, zeroed.
template <class Header, class Element>
class Trailing {
 public:
  explicit Trailing(std::size_t count)
      : storage_(std::make_unique<u64[]>((sizeof(Header) + count * sizeof(Element) + 7) / 8)) {}
  Header* get() { return reinterpret_cast<Header*>(storage_.get()); }
  Header* operator->() { return get(); }

 private:
  std::unique_ptr<u64[]> storage_;
};

}  // namespace smol::hypervisor::kvm
