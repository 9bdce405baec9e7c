// The two cascaded 8259A interrupt controllers of a PC, with the edge/level registers of the chip
// sets (0x4d0, 0x4d1).
//
// A pure state machine: no thread and no lock of its own; the owner calls under its lock and looks
// at output() after every call. Source: Intel 8259A datasheet (231468); Intel 82371AB (PIIX4), 4.2
// (ELCR).
#pragma once

#include "base/bytes.h"

namespace smol::hypervisor::soft {

class Pic {
 public:
  Pic() { reset(); }
  void reset();

  // Ports 0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1. Others: handles() is false.
  static bool handles(u16 port);
  u8 read(u16 port);
  void write(u16 port, u8 value);

  // irq: 0-15 (2, the cascade, is ignored).
  void set_line(u32 irq, bool asserted);
  // INTR of the master.
  bool output() const { return chips_[0].intr; }
  // INTA: the vector to take; a spurious one (IRQ 7 or 15) when the request went away.
  u8 acknowledge();

  struct Chip {
    u8 lines = 0;  // line states
    u8 irr = 0, isr = 0, imr = 0;
    u8 elcr = 0;
    u8 base = 0;    // ICW2
    u8 lowest = 7;  // the input of lowest priority
    u8 step = 0;    // initialisation: 0 done, else the ICW that is expected next (2, 3, 4)
    bool needs_icw4 = false, single = false;
    bool auto_eoi = false, rotate_on_auto_eoi = false, special_fully_nested = false;
    bool special_mask = false, poll = false, read_isr = false;
    bool intr = false;
  };
  struct State {
    Chip chips[2];
  };
  State save() const { return {{chips_[0], chips_[1]}}; }
  void restore(const State& state);

 private:
  int pending(const Chip& chip) const;
  int take(Chip& chip);
  void update();
  void set_chip_line(Chip& chip, u32 input, bool asserted);
  void write_command(u32 index, u8 value);
  void write_data(u32 index, u8 value);
  void write_ocw2(Chip& chip, u8 value);
  u8 poll(u32 index);

  Chip chips_[2];
};

}  // namespace smol::hypervisor::soft
