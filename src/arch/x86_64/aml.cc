#include "arch/x86_64/aml.h"

#include "base/check.h"

namespace smol::arch::x86_64::aml {
namespace {

constexpr u8 kZeroOp = 0x00, kOneOp = 0x01, kNameOp = 0x08, kBytePrefix = 0x0a, kWordPrefix = 0x0b,
             kDwordPrefix = 0x0c, kStringPrefix = 0x0d, kQwordPrefix = 0x0e, kScopeOp = 0x10,
             kBufferOp = 0x11, kPackageOp = 0x12, kMethodOp = 0x14, kDualName = 0x2e,
             kMultiName = 0x2f, kExtended = 0x5b, kRegionOp = 0x80, kFieldOp = 0x81,
             kDeviceOp = 0x82, kStoreOp = 0x70, kAndOp = 0x7b, kNotifyOp = 0x86, kIfOp = 0xa0;
constexpr u8 kSystemIo = 1, kByteAccess = 1, kSerialized = 0x08;

template <class T>
void append(Bytes& out, T value) {
  const ConstByteSpan bytes = base::bytes_of(value);
  out.insert(out.end(), bytes.begin(), bytes.end());
}

void append(Bytes& out, const Bytes& more) { out.insert(out.end(), more.begin(), more.end()); }

// PkgLength (20.2.4) counts itself: the shortest form that holds the sum.
Bytes package_length(u64 content) {
  if (content + 1 < 0x40) return {static_cast<u8>(content + 1)};
  u8 extra = 1;
  while (content + 1 + extra >= (u64{1} << (4 + 8 * extra))) ++extra;
  CHECK(extra <= 3);
  const u64 total = content + 1 + extra;
  Bytes out{static_cast<u8>((extra << 6) | (total & 0xf))};
  for (u8 i = 0; i < extra; ++i) out.push_back(static_cast<u8>(total >> (4 + 8 * i)));
  return out;
}

// The length field of a named field is in bits and does not count itself.
Bytes field_length(u8 bits) {
  CHECK(bits < 0x40);
  return {bits};
}

Bytes segment(std::string_view text) {
  CHECK(!text.empty() && text.size() <= 4);
  Bytes out;
  for (const char c : text) {
    CHECK((c >= 'A' && c <= 'Z') || c == '_' || (c >= '0' && c <= '9' && !out.empty()));
    out.push_back(static_cast<u8>(c));
  }
  out.resize(4, '_');
  return out;
}

Bytes with_length(std::initializer_list<u8> opcode, const Bytes& content) {
  Bytes out(opcode);
  append(out, package_length(content.size()));
  append(out, content);
  return out;
}

// A large resource descriptor (6.4.3): tag, 16-bit length, body.
Bytes large(u8 tag, const Bytes& body) {
  Bytes out{tag};
  append(out, static_cast<u16>(body.size()));
  append(out, body);
  return out;
}

}  // namespace

Bytes join(std::initializer_list<Bytes> parts) {
  Bytes out;
  for (const Bytes& part : parts) append(out, part);
  return out;
}

Bytes path(std::string_view text) {
  Bytes out;
  if (text.starts_with('\\')) {
    out.push_back('\\');
    text.remove_prefix(1);
  }
  Bytes segments;
  u8 count = 0;
  while (!text.empty()) {
    const std::size_t dot = text.find('.');
    append(segments, segment(text.substr(0, dot)));
    ++count;
    text = dot == std::string_view::npos ? std::string_view() : text.substr(dot + 1);
  }
  if (count == 0) out.push_back(0);
  if (count == 2) out.push_back(kDualName);
  if (count > 2) {
    out.push_back(kMultiName);
    out.push_back(count);
  }
  append(out, segments);
  return out;
}

Bytes integer(u64 value) {
  if (value == 0) return {kZeroOp};
  if (value == 1) return {kOneOp};
  Bytes out;
  if (value <= 0xff) {
    out.push_back(kBytePrefix);
    append(out, static_cast<u8>(value));
  } else if (value <= 0xffff) {
    out.push_back(kWordPrefix);
    append(out, static_cast<u16>(value));
  } else if (value <= 0xffffffff) {
    out.push_back(kDwordPrefix);
    append(out, static_cast<u32>(value));
  } else {
    out.push_back(kQwordPrefix);
    append(out, value);
  }
  return out;
}

Bytes string(std::string_view text) {
  Bytes out{kStringPrefix};
  out.insert(out.end(), text.begin(), text.end());
  out.push_back(0);
  return out;
}

Bytes eisa_id(std::string_view id) {
  CHECK(id.size() == 7);
  u32 value = 0;
  for (int i = 0; i < 3; ++i) value = (value << 5) | static_cast<u32>(id[i] - '@');
  for (int i = 3; i < 7; ++i) {
    value = (value << 4) | static_cast<u32>(id[i] <= '9' ? id[i] - '0' : id[i] - 'A' + 10);
  }
  Bytes out{kDwordPrefix};
  append(out, __builtin_bswap32(value));
  return out;
}

Bytes name(std::string_view object, const Bytes& value) {
  return join({{kNameOp}, path(object), value});
}

Bytes scope(std::string_view where, const Bytes& terms) {
  return with_length({kScopeOp}, join({path(where), terms}));
}

Bytes device(std::string_view object, const Bytes& terms) {
  return with_length({kExtended, kDeviceOp}, join({path(object), terms}));
}

Bytes package(std::initializer_list<Bytes> elements) {
  return with_length({kPackageOp}, join({{static_cast<u8>(elements.size())}, join(elements)}));
}

Bytes method(std::string_view object, u8 arguments, const Bytes& terms) {
  CHECK(arguments <= 7);
  return with_length({kMethodOp},
                     join({path(object), {static_cast<u8>(arguments | kSerialized)}, terms}));
}

Bytes port_region(std::string_view region, u16 port, u8 size) {
  return join({{kExtended, kRegionOp}, path(region), {kSystemIo}, integer(port), integer(size)});
}

Bytes byte_field(std::string_view region, std::string_view field) {
  return with_length({kExtended, kFieldOp},
                     join({path(region), {kByteAccess}, segment(field), field_length(8)}));
}

Bytes local0() { return {kLocal0}; }
Bytes store(const Bytes& from, const Bytes& to) { return join({{kStoreOp}, from, to}); }
Bytes bit_and(const Bytes& a, const Bytes& b) { return join({{kAndOp}, a, b, {kZeroOp}}); }
Bytes if_true(const Bytes& condition, const Bytes& terms) {
  return with_length({kIfOp}, join({condition, terms}));
}
Bytes notify(std::string_view object, u8 value) {
  return join({{kNotifyOp}, path(object), integer(value)});
}

Bytes resources(std::initializer_list<Bytes> descriptors) {
  const Bytes content = join({join(descriptors), {0x79, 0x00}});  // end tag without checksum
  return with_length({kBufferOp}, join({integer(content.size()), content}));
}

Bytes io_ports(u16 first, u8 count) {
  Bytes out{0x47, 0x01};  // decodes 16 bits
  append(out, first);
  append(out, first);
  out.push_back(1);  // alignment
  out.push_back(count);
  return out;
}

Bytes irq(u8 line) {
  CHECK(line < 16);
  Bytes out{0x22};
  append(out, static_cast<u16>(1u << line));
  return out;
}

Bytes interrupt(u32 line, Trigger trigger) {
  Bytes body{static_cast<u8>(0x01 | (trigger == Trigger::kEdge ? 0x02 : 0)),
             1};  // consumer, active high
  append(body, line);
  return large(0x89, body);
}

Bytes memory32(u32 start, u32 size) {
  Bytes body{0x01};  // writable
  append(body, start);
  append(body, size);
  return large(0x86, body);
}

Bytes bus_numbers(u16 first, u16 count) {
  Bytes body{0x02, 0x0c, 0x00};  // bus numbers; minimum and maximum fixed
  for (const u16 word : {u16{0}, first, static_cast<u16>(first + count - 1), u16{0}, count})
    append(body, word);
  return large(0x88, body);
}

Bytes memory_window(u32 start, u32 size) {
  Bytes body{0x00, 0x0c, 0x01};  // memory; minimum and maximum fixed; writable, not cacheable
  for (const u32 word : {0u, start, start + size - 1, 0u, size}) append(body, word);
  return large(0x87, body);
}

}  // namespace smol::arch::x86_64::aml
