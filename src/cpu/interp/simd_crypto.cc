// AES-NI and PCLMULQDQ.
#include "cpu/interp/host_simd_crypto.h"
#include "cpu/interp/simd_handlers.h"

namespace smol::cpu::simd {
namespace {

template <bool kHost>
struct Keygen {
  static constexpr u32 kBytes = 16;
  static Vec run(Vec, Vec b, u64 immediate) {
    const u64 constant = (immediate & 0xff) << 32;
    return (kHost ? AesKeygen::host(b) : AesKeygen::portable(b)) ^ Vec { constant, constant };
  }
};
template <bool kHost>
struct Pclmul {
  static constexpr u32 kBytes = 16;
  static Vec run(Vec a, Vec b, u64 immediate) {
    const Vec x = {immediate & 1 ? a[1] : a[0], 0}, y = {immediate & 16 ? b[1] : b[0], 0};
    return kHost ? Clmul::host(x, y) : Clmul::portable(x, y);
  }
};

}  // namespace

bool lower_crypto(const Request& request) {
  switch (request.instruction.opcode) {
    case Opcode::kAesenc:
      return use_xmm<Aesenc>(request);
    case Opcode::kAesenclast:
      return use_xmm<Aesenclast>(request);
    case Opcode::kAesdec:
      return use_xmm<Aesdec>(request);
    case Opcode::kAesdeclast:
      return use_xmm<Aesdeclast>(request);
    case Opcode::kAesimc:
      return use_xmm<Aesimc>(request);
    case Opcode::kAeskeygenassist:
      return request.use(host_has(Level::kAes) ? kXmmForms<Keygen<true>>
                                               : kXmmForms<Keygen<false>>);
    case Opcode::kPclmulqdq:
      return request.use(host_has(Level::kPclmul) ? kXmmForms<Pclmul<true>>
                                                  : kXmmForms<Pclmul<false>>);
    default:
      return false;
  }
}

}  // namespace smol::cpu::simd
