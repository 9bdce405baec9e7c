#include "hypervisor/soft/pic.h"

namespace smol::hypervisor::soft {

namespace {
constexpr u8 kElcrWritable[2] = {0xf8, 0xde};  // IRQ 0, 1, 2, 8 and 13 are always edge

// Distance from the input of highest priority; 8 for an empty set.
u32 best_rank(u8 set, u8 lowest) {
  for (u32 rank = 0; rank < 8; ++rank)
    if ((set & (1u << ((lowest + 1 + rank) & 7))) != 0) return rank;
  return 8;
}
}  // namespace

void Pic::reset() {
  for (Chip& chip : chips_) {
    const u8 lines = chip.lines;
    chip = Chip{};
    chip.lines = lines;
  }
}

void Pic::restore(const State& state) {
  chips_[0] = state.chips[0];
  chips_[1] = state.chips[1];
  for (Chip& chip : chips_) {
    chip.lowest &= 7;
    chip.step = chip.step > 4 ? 0 : chip.step;
  }
  update();
}

bool Pic::handles(u16 port) {
  return port == 0x20 || port == 0x21 || port == 0xa0 || port == 0xa1 || port == 0x4d0 ||
         port == 0x4d1;
}

// The input that the chip asks INTR for, or -1.
int Pic::pending(const Chip& chip) const {
  const u8 requests = chip.irr & static_cast<u8>(~chip.imr);
  const u32 rank = best_rank(requests, chip.lowest);
  if (rank == 8) return -1;
  u8 blocking = chip.isr;
  // In the special fully nested mode a slave may ask again while it is in service.
  if (chip.special_fully_nested && &chip == &chips_[0]) blocking &= static_cast<u8>(~(1u << 2));
  // With the special mask, an unmasked input is stopped only by itself (its ISR bit).
  if (chip.special_mask) {
    for (u32 r = 0; r < 8; ++r) {
      const u32 input = (chip.lowest + 1 + r) & 7;
      if ((requests & (1u << input)) != 0 && (chip.isr & (1u << input)) == 0)
        return static_cast<int>(input);
    }
    return -1;
  }
  if (rank >= best_rank(blocking, chip.lowest)) return -1;
  return static_cast<int>((chip.lowest + 1 + rank) & 7);
}

void Pic::update() {
  chips_[1].intr = pending(chips_[1]) >= 0;
  set_chip_line(chips_[0], 2, chips_[1].intr);
  chips_[0].intr = pending(chips_[0]) >= 0;
}

void Pic::set_chip_line(Chip& chip, u32 input, bool asserted) {
  const u8 mask = static_cast<u8>(1u << input);
  const bool level = (chip.elcr & mask) != 0;
  if (!asserted) {
    chip.lines &= static_cast<u8>(~mask);
    // An edge stays latched when its line falls (as in KVM; event sources pulse). The cascade
    // follows the slave.
    if (level || (&chip == &chips_[0] && input == 2)) chip.irr &= static_cast<u8>(~mask);
    return;
  }
  if (level || (chip.lines & mask) == 0) chip.irr |= mask;
  chip.lines |= mask;
}

void Pic::set_line(u32 irq, bool asserted) {
  if (irq > 15 || irq == 2) return;
  set_chip_line(chips_[irq >> 3], irq & 7, asserted);
  update();
}

// Acknowledges the best request of one chip: its input, or -1.
int Pic::take(Chip& chip) {
  const int input = pending(chip);
  if (input < 0) return -1;
  const u8 mask = static_cast<u8>(1u << input);
  if ((chip.elcr & mask) == 0) chip.irr &= static_cast<u8>(~mask);
  if (!chip.auto_eoi)
    chip.isr |= mask;
  else if (chip.rotate_on_auto_eoi)
    chip.lowest = static_cast<u8>(input);
  return input;
}

u8 Pic::acknowledge() {
  const int input = take(chips_[0]);
  u8 vector = static_cast<u8>(chips_[0].base + (input < 0 ? 7 : input));
  if (input == 2) {
    const int second = take(chips_[1]);
    vector = static_cast<u8>(chips_[1].base + (second < 0 ? 7 : second));
    // The cascade input follows the slave; it is an edge input, so let a further request make an
    // edge.
    set_chip_line(chips_[0], 2, false);
  }
  update();
  return vector;
}

u8 Pic::poll(u32 index) {
  const int input = take(chips_[index]);
  if (index == 1 && input >= 0) set_chip_line(chips_[0], 2, false);
  update();
  return input < 0 ? u8{7} : static_cast<u8>(0x80 | input);
}

u8 Pic::read(u16 port) {
  if (port == 0x4d0 || port == 0x4d1) return chips_[port & 1].elcr;
  const u32 index = port >= 0xa0 ? 1 : 0;
  Chip& chip = chips_[index];
  if (chip.poll) {
    chip.poll = false;
    return poll(index);
  }
  if ((port & 1) != 0) return chip.imr;
  return chip.read_isr ? chip.isr : chip.irr;
}

void Pic::write(u16 port, u8 value) {
  if (port == 0x4d0 || port == 0x4d1) {
    chips_[port & 1].elcr = value & kElcrWritable[port & 1];
  } else if ((port & 1) == 0) {
    write_command(port >= 0xa0 ? 1 : 0, value);
  } else {
    write_data(port >= 0xa0 ? 1 : 0, value);
  }
  update();
}

void Pic::write_command(u32 index, u8 value) {
  Chip& chip = chips_[index];
  if ((value & 0x10) != 0) {  // ICW1
    const u8 lines = chip.lines, elcr = chip.elcr;
    chip = Chip{};
    chip.lines = lines;
    chip.elcr = elcr;
    chip.irr = lines & elcr;  // edges seen so far are forgotten
    chip.needs_icw4 = (value & 1) != 0;
    chip.single = (value & 2) != 0;
    chip.step = 2;
    return;
  }
  if ((value & 0x08) != 0) {  // OCW3
    if ((value & 0x04) != 0) chip.poll = true;
    if ((value & 0x02) != 0) chip.read_isr = (value & 1) != 0;
    if ((value & 0x40) != 0) chip.special_mask = (value & 0x20) != 0;
    return;
  }
  write_ocw2(chip, value);
}

void Pic::write_ocw2(Chip& chip, u8 value) {
  const u32 named = value & 7;
  const bool rotate = (value & 0x80) != 0, specific = (value & 0x40) != 0,
             eoi = (value & 0x20) != 0;
  if (!eoi) {
    if (specific && rotate) chip.lowest = static_cast<u8>(named);  // set priority
    if (!specific) chip.rotate_on_auto_eoi = rotate;
    return;
  }
  u32 input = named;
  if (!specific) {
    u8 candidates = chip.isr;
    if (chip.special_mask) candidates &= static_cast<u8>(~chip.imr);
    const u32 rank = best_rank(candidates, chip.lowest);
    if (rank == 8) return;
    input = (chip.lowest + 1 + rank) & 7;
  }
  chip.isr &= static_cast<u8>(~(1u << input));
  if (rotate) chip.lowest = static_cast<u8>(input);
}

void Pic::write_data(u32 index, u8 value) {
  Chip& chip = chips_[index];
  switch (chip.step) {
    case 2:
      chip.base = value & 0xf8;
      chip.step = chip.single ? (chip.needs_icw4 ? 4 : 0) : 3;
      return;
    case 3:  // the cascade is wired as in every PC
      chip.step = chip.needs_icw4 ? 4 : 0;
      return;
    case 4:
      chip.special_fully_nested = (value & 0x10) != 0;
      chip.auto_eoi = (value & 0x02) != 0;
      chip.step = 0;
      return;
    default:
      chip.imr = value;
      return;
  }
}

}  // namespace smol::hypervisor::soft
