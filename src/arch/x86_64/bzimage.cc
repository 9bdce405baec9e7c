// bzImage through the Linux 64-bit boot protocol. A bzImage is real-mode setup code with a header,
// then a decompressor that carries the compressed vmlinux. We take the vmlinux out, unpack it on
// the host, load its segments where they are linked and enter it at its ELF entry (startup_64) with
// a zero page: neither the setup code nor the decompressor runs, so there is no KASLR and no
// relocation. A payload in a format that we cannot read is left to the bzImage's own 64-bit entry
// (protected-mode code + 0x200), when it has one. Source: Linux Documentation/arch/x86/boot.rst
// ("The Linux/x86 Boot Protocol", 2.15; "64-bit Boot Protocol") and zero-page.rst.
#include <sys/mman.h>

#include <algorithm>
#include <array>

#include "arch/x86_64/cpu_setup.h"
#include "arch/x86_64/decompress.h"
#include "arch/x86_64/elf.h"
#include "arch/x86_64/loaders.h"
#include "base/check.h"
#include "base/log.h"

namespace smol::arch::x86_64 {
namespace {

// Offsets in the file's first sectors and in struct boot_params alike.
constexpr u64 kAcpiRsdp = 0x70, kE820Count = 0x1e8, kSetupHeader = 0x1f1, kBootFlag = 0x1fe,
              kJump = 0x201, kHeaderMagic = 0x202, kVersion = 0x206, kTypeOfLoader = 0x210,
              kLoadFlags = 0x211, kRamdiskImage = 0x218, kRamdiskSize = 0x21c, kHeapEnd = 0x224,
              kCommandLinePointer = 0x228, kInitrdMax = 0x22c, kXloadFlags = 0x236,
              kCommandLineSize = 0x238, kPayloadOffset = 0x248, kPayloadLength = 0x24c,
              kSetupData = 0x250, kPreferredAddress = 0x258, kInitSize = 0x260, kE820Table = 0x2d0;
constexpr u64 kHeaderEndMax = 0x290;   // the next field of boot_params
constexpr u64 kHeaderBytes = 0x2d0;    // what we read of the file's start
constexpr u16 kOldestVersion = 0x208;  // payload_offset and payload_length
constexpr u8 kLoaderUndefined = 0xff, kLoadedHigh = 0x01, kCanUseHeap = 0x80;
constexpr u16 kXlfKernel64 = 1;
constexpr u64 kMaxVmlinux = kGiB;  // bytes, decompressed
constexpr u64 kEntry64 = 0x200;    // startup_64 in the protected-mode code
constexpr u64 kE820Max = 128;

struct Setup {
  std::array<u8, kHeaderBytes> bytes{};
  u64 code_start = 0;  // protected-mode code in the file

  template <class T>
  T get(u64 offset) const {
    return base::load<T>(&bytes[offset]);
  }
};

Result<Setup> read_setup(const ImageSource& image) {
  Setup setup;
  if (!has_bzimage_header(image)) return fail("{}: no bzImage header", image.name());
  TRY(image.read(0, ByteSpan(setup.bytes).first(std::min(kHeaderBytes, image.size()))));
  const u16 version = setup.get<u16>(kVersion);
  if (version < kOldestVersion) {
    return fail(
        "{}: boot protocol {}.{:02} is too old; 2.08 (Linux 2.6.26) is the oldest that can be "
        "loaded",
        image.name(), version >> 8, version & 0xff);
  }
  const u8 sectors = setup.bytes[kSetupHeader];
  setup.code_start = (u64{sectors == 0 ? u8{4} : sectors} + 1) * 512;
  if (setup.code_start >= image.size()) {
    return fail("{} is cut short: its setup code alone has {} bytes, the file {}", image.name(),
                setup.code_start, image.size());
  }
  return setup;
}

// A copy, not a mapping of the file: a file that shrinks while it is unpacked must not be able to
// kill us.
Result<base::Mapping> read_payload(const ImageSource& image, const Setup& setup) {
  const u64 offset = setup.code_start + setup.get<u32>(kPayloadOffset);
  const u64 length = setup.get<u32>(kPayloadLength);
  if (length < 8)
    return fail("{}: the header declares a payload of {} bytes", image.name(), length);
  if (offset > image.size() || length > image.size() - offset) {
    return fail("{} is cut short: its payload ends at {}, the file at {}", image.name(),
                offset + length, image.size());
  }
  TRY_ASSIGN(base::Mapping payload,
             base::Mapping::map(length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0,
                                "room for the kernel's payload"));
  (void)madvise(payload.data(), payload.size(), MADV_HUGEPAGE);
  TRY(image.read(offset, payload.bytes()));
  return payload;
}

// Loads the vmlinux in the payload; gives its 64-bit entry point.
Result<u64> load_vmlinux(LoadMap& map, const ImageSource& vmlinux) {
  if (!is_elf(vmlinux)) return fail("{} is not an ELF file", vmlinux.name());
  TRY_ASSIGN(const ElfImage elf, parse_elf(vmlinux));
  if (!elf.is_64 || elf.machine != kElfMachineX86_64) {
    return fail("{} is a 32-bit kernel; only x86-64 kernels can be booted from a bzImage",
                vmlinux.name());
  }
  TRY(load_elf_segments(vmlinux, elf, map));
  return elf.entry;
}

// The bzImage's own decompressor, at its preferred address.
Result<u64> load_protected_code(LoadMap& map, const ImageSource& image, const Setup& setup) {
  const u64 length = image.size() - setup.code_start;
  const u64 start = setup.get<u64>(kPreferredAddress);
  const u64 needed = std::max<u64>(setup.get<u32>(kInitSize), length);
  TRY(map.claim(image.name(), GuestPhysical(start), needed));
  TRY(image.load(setup.code_start, map.memory(), GuestPhysical(start), length));
  return start + kEntry64;
}

Result<u64> load_code(LoadMap& map, const ImageSource& image, const Setup& setup) {
  TRY_ASSIGN(const base::Mapping mapping, read_payload(image, setup));
  const ConstByteSpan payload = mapping.bytes();
  const std::string name = fmt::format("the vmlinux in {}", image.name());
  const BytesImage plain(payload, name);
  if (is_elf(plain)) return load_vmlinux(map, plain);
  const std::optional<Compression> compression = detect_compression(payload);
  if (!compression || !can_decompress(*compression)) {
    const std::string_view format = compression ? name_of(*compression) : "an unknown format";
    if (setup.get<u16>(kVersion) < 0x20c || (setup.get<u16>(kXloadFlags) & kXlfKernel64) == 0) {
      return fail(
          "{}: its payload is compressed with {}, which cannot be unpacked here, and it has no "
          "64-bit entry",
          image.name(), format);
    }
    base::log_info("{}: payload in {}; the guest unpacks it", image.name(), format);
    return load_protected_code(map, image, setup);
  }
  const u64 size = base::load<u32>(&payload[payload.size() - 4]);
  if (size > kMaxVmlinux)
    return fail("{}: declares {} bytes, more than any kernel has", name, size);
  TRY_ASSIGN(const base::Mapping unpacked, decompress(*compression, payload, size, name));
  return load_vmlinux(map, BytesImage(unpacked.bytes(), name));
}

Result<> put_zero_page(LoadMap& map, const Setup& setup, const LoadedInitrd& initrd,
                       const BootInputs& inputs) {
  TRY_ASSIGN(const ByteSpan page, map.claim("the zero page", kZeroPage, kPageSize));
  const u64 header_end = std::min<u64>(kHeaderMagic + setup.bytes[kJump], kHeaderEndMax);
  std::memcpy(&page[kSetupHeader], &setup.bytes[kSetupHeader], header_end - kSetupHeader);
  page[kTypeOfLoader] = kLoaderUndefined;
  page[kLoadFlags] = static_cast<u8>((page[kLoadFlags] | kLoadedHigh) & ~kCanUseHeap);
  base::store<u16>(&page[kHeapEnd], 0);
  base::store<u64>(&page[kSetupData], 0);
  base::store<u32>(&page[kCommandLinePointer], static_cast<u32>(kCommandLine.value));
  base::store<u32>(&page[kRamdiskImage], static_cast<u32>(initrd.start.value));
  base::store<u32>(&page[kRamdiskSize], static_cast<u32>(initrd.size));
  base::store<u64>(&page[kAcpiRsdp], inputs.rsdp ? inputs.rsdp->value : 0);
  const std::vector<E820Entry> e820 = build_e820(map.memory());
  CHECK(e820.size() <= kE820Max);
  page[kE820Count] = static_cast<u8>(e820.size());
  for (std::size_t i = 0; i < e820.size(); ++i) {
    u8* const at = &page[kE820Table + i * 20];
    base::store<u64>(at, e820[i].start);
    base::store<u64>(at + 8, e820[i].size);
    base::store<u32>(at + 16, static_cast<u32>(e820[i].type));
  }
  map.memory().note_written(kZeroPage, kPageSize);
  return {};
}

}  // namespace

bool has_bzimage_header(const ImageSource& image) {
  std::array<u8, 8> mark{};  // from the boot flag: aa55, jump, "HdrS"
  return image.size() > 0x268 && image.read(kBootFlag, mark) && mark[0] == 0x55 &&
         mark[1] == 0xaa && std::memcmp(&mark[4], "HdrS", 4) == 0;
}

Result<hypervisor::CpuState> load_bzimage(LoadMap& map, const BootInputs& inputs) {
  TRY_ASSIGN(const Setup setup, read_setup(*inputs.kernel));
  TRY(map.claim("the boot GDT", kBootGdt, 64));
  TRY(map.claim("the boot page tables", kPageTables, kPageTablesSize));
  TRY_ASSIGN(const u64 entry, load_code(map, *inputs.kernel, setup));
  const u32 line_limit = setup.get<u32>(kCommandLineSize);
  TRY(put_command_line(map, inputs.command_line, line_limit == 0 ? 255 : line_limit));
  const u64 initrd_limit = u64{setup.get<u32>(kInitrdMax)} + 1;
  TRY_ASSIGN(const LoadedInitrd initrd, load_initrd(map, inputs.initrd, initrd_limit));
  TRY(put_zero_page(map, setup, initrd, inputs));
  TRY_ASSIGN(hypervisor::CpuState state, long_mode_state(map.memory(), entry));
  state.general.gpr[6] = kZeroPage.value;  // RSI
  return state;
}

}  // namespace smol::arch::x86_64
