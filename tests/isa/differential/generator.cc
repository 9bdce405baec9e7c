#include "differential/generator.h"

#include <algorithm>

#include "cpu/state/cpu.h"

namespace smol::isa {

using cpu::Instruction;
using cpu::Opcode;
using cpu::OperandKind;
using namespace cpu::table;

const char* excluded(Opcode opcode) {
  switch (opcode) {
    case Opcode::kRcpps:
    case Opcode::kRcpss:
    case Opcode::kRsqrtps:
    case Opcode::kRsqrtss:
      return "approximations: each processor has its own values";
    case Opcode::kCpuid:
    case Opcode::kRdtsc:
    case Opcode::kRdtscp:
    case Opcode::kRdpmc:
    case Opcode::kRdrand:
    case Opcode::kRdseed:
    case Opcode::kRdpid:
    case Opcode::kXgetbv:
      return "answers differ by design";
    case Opcode::kSyscall:
    case Opcode::kSysenter:
    case Opcode::kSysexit:
    case Opcode::kInt:
    case Opcode::kInt1:
    case Opcode::kVmcall:
    case Opcode::kVmmcall:
      return "enters the host's kernel";
    case Opcode::kInt3:
      return "ends the sequence";
    case Opcode::kCallFar:
    case Opcode::kJmpFar:
    case Opcode::kRetFar:
    case Opcode::kIret:
    case Opcode::kPopSegment:
    case Opcode::kLfs:
    case Opcode::kLes:
    case Opcode::kLds:
    case Opcode::kLgs:
    case Opcode::kLss:
    case Opcode::kLar:
    case Opcode::kLsl:
    case Opcode::kVerr:
    case Opcode::kVerw:
    case Opcode::kSldt:
    case Opcode::kStr:
    case Opcode::kSgdt:
    case Opcode::kSidt:
    case Opcode::kSmsw:
      return "depends on the kernel's descriptor tables";
    case Opcode::kPopf:
      return "may set TF; drawn with a masked value by a template instead";
    case Opcode::kFxsave:
    case Opcode::kXsave:
    case Opcode::kXsaveopt:
    case Opcode::kXsavec:
    case Opcode::kXsaves:
    case Opcode::kFnsave:
    case Opcode::kFnstenv:
      return "stores instruction pointers, which processors keep differently";
    case Opcode::kFxrstor:
    case Opcode::kXrstor:
    case Opcode::kXrstors:
    case Opcode::kFldenv:
    case Opcode::kFrstor:
      return "loads the reserved bits that random memory holds";
    case Opcode::kMonitor:
    case Opcode::kMwait:
    case Opcode::kSwapgs:
    case Opcode::kRdfsbase:
    case Opcode::kRdgsbase:
    case Opcode::kWrfsbase:
    case Opcode::kWrgsbase:
    case Opcode::kClac:
    case Opcode::kStac:
    case Opcode::kXsetbv:
    case Opcode::kInvpcid:
    case Opcode::kRsm:
      return "system instruction, tested by the conformance suite";
    default:
      return nullptr;
  }
}

bool leaves_c1_open(Opcode opcode) {
  switch (opcode) {
    case Opcode::kFcomi:
    case Opcode::kFcomip:
    case Opcode::kFucomi:
    case Opcode::kFucomip:
    case Opcode::kFfree:
    case Opcode::kFfreep:
      return true;
    default:
      return false;
  }
}

namespace {

// Memory forms that would leave the small world, and selectors that differ.
bool instruction_excluded(const Instruction& i) {
  if (excluded(i.opcode) != nullptr) return true;
  if (i.opcode == Opcode::kMovSegment && i.operands[0].kind == OperandKind::kSegment) return true;
  // AMD's processors have no register form of the prefetch group; Intel's take it for a NOP, as we
  // do.
  if (i.opcode == Opcode::kNop && i.operand_count != 0 && i.operands[0].size == 0) return true;
  // Intel enters MMX state for CVTPI2PS from memory as well, AMD does not.
  if (i.opcode == Opcode::kCvtpi2ps && i.has_modrm_memory) return true;
  // A double shift of 16 bits by more than 16 leaves the result undefined (SDM, SHLD).
  if ((i.opcode == Opcode::kShld || i.opcode == Opcode::kShrd) && i.operand_size == 2)
    return i.operands[2].kind != OperandKind::kImmediate || (i.immediate & 31) > 16;
  // LES-like and protected forms of 0F 00, and CR/DR/MSR access, end in #GP before anything is
  // read.
  return false;
}

// Privileged or invalid in user code: they only end sequences, so they are drawn less.
bool always_faults(Opcode o) {
  switch (o) {
    case Opcode::kUd0:
    case Opcode::kUd1:
    case Opcode::kUd2:
    case Opcode::kCli:
    case Opcode::kSti:
    case Opcode::kHlt:
    case Opcode::kIn:
    case Opcode::kOut:
    case Opcode::kIns:
    case Opcode::kOuts:
    case Opcode::kClts:
    case Opcode::kMovControl:
    case Opcode::kMovDebug:
    case Opcode::kLgdt:
    case Opcode::kLidt:
    case Opcode::kLldt:
    case Opcode::kLtr:
    case Opcode::kLmsw:
    case Opcode::kInvlpg:
    case Opcode::kInvd:
    case Opcode::kWbinvd:
    case Opcode::kRdmsr:
    case Opcode::kWrmsr:
    case Opcode::kSysret:
    case Opcode::kRet:
      return true;
    default:
      return false;
  }
}

// F3 makes BSF and BSR the LZCNT and TZCNT of a host that has those, which the model has not. AMD's
// LOOPE with F2 loops while not equal, and LOOPNE with F3 while equal; Intel ignores the prefix.
bool takes_repeat(Opcode o) {
  return o != Opcode::kBsf && o != Opcode::kBsr && o != Opcode::kLoope && o != Opcode::kLoopne;
}

bool is_string(Opcode o) {
  return o == Opcode::kMovs || o == Opcode::kCmps || o == Opcode::kScas || o == Opcode::kLods ||
         o == Opcode::kStos;
}

}  // namespace

struct Generator::Registers {
  bool pointer[16] = {};
  bool small[16] = {};
};

Generator::Generator(u64 features, u64 seed, bool code32)
    : mode_{.code_size = code32 ? cpu::CodeSize::k32 : cpu::CodeSize::k64, .features = features},
      random_(seed) {
  for (const Row& row : cpu::table::rows()) {
    // FSTPNCE (D9 D8+i) is not documented: it does not check for an empty register. The 8087's and
    // 287's leftovers in DB E0-E4 do not wait.
    if (row.opcode_byte == 0xd9 && row.opcode == Opcode::kFstp && row.form.kind == Form::kRegister)
      continue;
    if (row.opcode_byte == 0xdb && row.opcode == Opcode::kFnop) continue;
    if ((row.flags & (code32 ? kO64 | kW1 : kI64)) != 0 || excluded(row.opcode) != nullptr ||
        row.map == kV38 || row.map == kV3A)
      continue;
    if (row.feature != cpu::Feature::kBaseline && (features & cpu::feature_bit(row.feature)) == 0)
      continue;
    rows_.push_back(&row);
  }
}

void Generator::restrict_to(Opcode opcode) {
  std::erase_if(rows_, [&](const Row* row) { return row->opcode != opcode; });
}

void Generator::fill_data(u8* data) {
  for (u64 at = 0; at < kWritablePages * kPageSize; at += 16) {
    if (random_.percent(20)) {
      random_float80(random_, data + at);
      base::store<u32>(data + at + 12, static_cast<u32>(random_integer(random_)));
    } else {
      random_vector(random_, data + at);
    }
  }
}

void Generator::random_state(UserState& s, Registers& known) {
  for (unsigned r = 0; r < 16; ++r) {
    const u32 kind = random_.below(100);
    const bool must_point =
        r == cpu::kRsp || ((r == cpu::kRsi || r == cpu::kRdi) && random_.percent(80));
    if (must_point || kind < 45) {
      u64 offset = 64 + random_.below(kWritablePages * kPageSize - 128);
      if (r == cpu::kRsp ? random_.percent(92) : random_.percent(60)) offset &= ~u64{15};
      s.gpr[r] = kData + offset;
      known.pointer[r] = true;
    } else if (kind < 65) {
      s.gpr[r] = random_.below(48);
      known.small[r] = true;
    } else {
      s.gpr[r] = random_integer(random_);
    }
  }
  if (random_.percent(60)) {
    s.gpr[cpu::kRcx] = random_.below(40);
    known.pointer[cpu::kRcx] = false;
    known.small[cpu::kRcx] = true;
  }
  if (random_.percent(30))
    s.gpr[cpu::kRdx] = 0, known.pointer[cpu::kRdx] = false, known.small[cpu::kRdx] = true;
  s.rflags = 0x202 | (random_.next() & cpu::kArithmeticFlags) |
             (random_.percent(10) ? cpu::kFlagDf : 0) | (random_.percent(5) ? cpu::kFlagAc : 0);
  for (unsigned i = 0; i < 16; ++i) random_vector(random_, s.xmm(i));
  for (unsigned i = 0; i < 8; ++i) random_float80(random_, s.st(i));
  u16 control = 0x37f, status = 0;
  u32 mxcsr = 0x1f80;
  if (random_.percent(30)) control = static_cast<u16>(0x7f | (random_.next() & 0xf00));
  if (random_.percent(5)) control = static_cast<u16>(control & ~(random_.next() & 0x3f));
  if (random_.percent(50)) status = static_cast<u16>(random_.next() & 0x7f00);  // C3, TOP, C2-C0
  if (random_.percent(5)) status = static_cast<u16>(status | (random_.next() & 0x7f));
  if ((status & ~control & 0x3f) != 0) status |= 0x8080;
  if (random_.percent(30)) mxcsr |= random_.next() & 0xe07f;
  if (random_.percent(5)) mxcsr &= ~(random_.next() & 0x1f80);
  base::store<u16>(s.fx, control);
  base::store<u16>(s.fx + 2, status);
  s.fx[4] = random_.percent(60)   ? static_cast<u8>(random_.next() | random_.next())
            : random_.percent(50) ? 0xff
                                  : 0;
  base::store<u32>(s.fx + 24, mxcsr);
}

// ModRM, SIB and displacement for a row; returns the number of bytes. rex_rxb: the prefix's low
// bits, already written.
u32 Generator::encode_modrm(const Row& row, Registers& known, u8 rex_rxb, u8* out) {
  const Form form = row.form;
  if (form.kind == Form::kExact) {
    out[0] = form.value;
    return 1;
  }
  const u8 reg_field = form.kind != Form::kNone && form.value != 0xff
                           ? form.value
                           : static_cast<u8>(random_.below(8));
  const bool as_register =
      form.kind == Form::kRegister || (form.kind != Form::kMemory && random_.percent(45));
  if (as_register) {
    out[0] = static_cast<u8>(0xc0 | reg_field << 3 | random_.below(8));
    return 1;
  }
  // A base that points into the data, where REX.B lets us reach one.
  const u8 b = (rex_rxb & 1) << 3, x = (rex_rxb & 2) << 2;
  std::vector<u8> bases, indexes;
  for (u8 r = 0; r < 8; ++r) {
    if (known.pointer[r | b] || random_.percent(1)) bases.push_back(r);
    if (known.small[r | x] && (r | x) != 4) indexes.push_back(r);
  }
  const bool aligned = random_.percent(60);
  i32 displacement = static_cast<i32>(random_.below(256)) - 128;
  if (random_.percent(20)) displacement *= 8;
  if (aligned) displacement &= ~15;
  if (random_.percent(8)) {  // near the ends of the pages
    displacement = static_cast<i32>(kPageSize * random_.below(kDataPages + 1)) -
                   static_cast<i32>(random_.below(20));
    bases.clear();
  }
  if (bases.empty() || random_.percent(12)) {  // absolute, by SIB without base and index
    const bool edge = bases.empty() && displacement >= -20 && (displacement & 0xfff) > 0xfe0;
    const u32 at = static_cast<u32>(kData) +
                   (edge ? static_cast<u32>(displacement)
                         : random_.below(kWritablePages * kPageSize) & (aligned ? ~15u : ~0u));
    if (code32() || random_.percent(40)) {  // RIP-relative (absolute in 32-bit code): patched by
                                            // the caller, who knows where the instruction ends
      out[0] = static_cast<u8>(reg_field << 3 | 5);
      base::store<u32>(out + 1, code32() ? at : at - static_cast<u32>(kCodePage));
      return 5;
    }
    out[0] = static_cast<u8>(reg_field << 3 | 4);
    out[1] = 0x25;
    base::store<u32>(out + 2, at);
    return 6;
  }
  const u8 base_field = bases[random_.below(static_cast<u32>(bases.size()))];
  const bool indexed = !indexes.empty() && random_.percent(40);
  const u8 index_field = indexed ? indexes[random_.below(static_cast<u32>(indexes.size()))] : 4;
  const bool sib = indexed || base_field == 4 || (random_.percent(5) && (x == 0));
  const bool wide = displacement < -128 || displacement > 127 || random_.percent(20);
  const bool none = !wide && base_field != 5 && random_.percent(20);
  const u8 mod = none ? 0 : wide ? 2 : 1;
  u32 n = 0;
  out[n++] = static_cast<u8>(mod << 6 | reg_field << 3 | (sib ? 4 : base_field));
  if (sib) out[n++] = static_cast<u8>(random_.below(4) << 6 | index_field << 3 | base_field);
  if (none) return n;
  if (wide) {
    base::store<i32>(out + n, displacement);
    return n + 4;
  }
  out[n++] = static_cast<u8>(displacement);
  return n;
}

// One instruction of the row, with random bytes behind it for immediates. Returns the offset of
// those.
u32 Generator::encode(const Row& row, Registers& known, u8* out) {
  u32 n = 0;
  const bool repeats = is_string(row.opcode);
  if (random_.percent(3)) out[n++] = 0x67;
  if (!code32() && random_.percent(4)) out[n++] = random_.percent(50) ? 0x64 : 0x65;
  if (random_.percent(2)) out[n++] = 0x3e;
  if (row.prefix == kAny) {
    // Near branches with 66 have 16-bit offsets on AMD's processors; ours follows Intel's, which
    // ignore it.
    if ((row.flags & kF64) == 0 && random_.percent(22)) out[n++] = 0x66;
    if (repeats ? random_.percent(55) : takes_repeat(row.opcode) && random_.percent(1))
      out[n++] = random_.percent(50) ? 0xf3 : 0xf2;
  } else {
    if (row.prefix == k66 || (random_.percent(10) && row.prefix >= kF3)) out[n++] = 0x66;
    if (row.prefix == kF3) out[n++] = 0xf3;
    if (row.prefix == kF2) out[n++] = 0xf2;
  }
  if ((row.flags & kLock) != 0 && random_.percent(10)) out[n++] = 0xf0;
  u8 rex = 0;
  if (!code32() && random_.percent(60)) rex = static_cast<u8>(0x40 | random_.below(16));
  if ((row.flags & kW1) != 0) rex = static_cast<u8>(0x48 | random_.below(8));
  if (rex != 0) out[n++] = rex;
  if (row.map != kOne) out[n++] = 0x0f;
  if (row.map == k38) out[n++] = 0x38;
  if (row.map == k3A) out[n++] = 0x3a;
  const u32 span = (row.flags & kSpan16) != 0 ? 16 : (row.flags & kSpan8) != 0 ? 8 : 1;
  out[n++] = static_cast<u8>(row.opcode_byte + random_.below(span));
  const bool has_modrm = row.form.kind != Form::kNone ||
                         std::any_of(std::begin(row.operands), std::end(row.operands),
                                     [](Spec s) { return s != kNoOperand && s <= kLastModrmSpec; });
  if (has_modrm) n += encode_modrm(row, known, rex & 7, out + n);
  return n;
}

void Generator::note_written(const Instruction& i, Registers& known) {
  const auto forget = [&](u8 r) { known.pointer[r] = known.small[r] = false; };
  for (const cpu::Operand& op : i.operands) {
    if (op.kind == OperandKind::kGpr && i.opcode != Opcode::kCmp && i.opcode != Opcode::kTest &&
        i.opcode != Opcode::kPush) {
      if (&op == i.operands || i.opcode == Opcode::kXchg || i.opcode == Opcode::kXadd)
        forget(op.reg);
    }
    if (op.kind == OperandKind::kGprHigh8 && &op == i.operands) forget(op.reg);
  }
  switch (i.opcode) {
    case Opcode::kMul:
    case Opcode::kImul:
    case Opcode::kDiv:
    case Opcode::kIdiv:
    case Opcode::kCwd:
    case Opcode::kCbw:
    case Opcode::kCmpxchg:
    case Opcode::kCmpxchg8b:
    case Opcode::kCmpxchg16b:
    case Opcode::kXlat:
    case Opcode::kLods:
    case Opcode::kLahf:
    case Opcode::kFnstsw:
      forget(cpu::kRax);
      forget(cpu::kRdx);
      break;
    case Opcode::kPcmpestri:
    case Opcode::kPcmpistri:
      forget(cpu::kRcx);
      break;
    case Opcode::kEnter:
    case Opcode::kLeave:
      known.small[cpu::kRbp] = false;
      break;
    default:
      break;
  }
}

bool Generator::random_step(Registers& known, Step& step) {
  const Row& row = *rows_[random_.below(static_cast<u32>(rows_.size()))];
  if (always_faults(row.opcode) && rows_.size() > 50 && !random_.percent(10)) return false;
  u8 bytes[32];
  const u32 n = encode(row, known, bytes);
  for (u32 at = n; at < 24; at += 8) base::store<u64>(bytes + at, random_integer(random_));
  if (row.opcode == Opcode::kEnter) {
    base::store<u16>(bytes + n, static_cast<u16>(random_.below(256)));
    bytes[n + 2] = static_cast<u8>(random_.percent(70) ? 0 : random_.below(40));
  }
  Instruction& i = step.instruction;
  if (cpu::decode(bytes, 15, mode_, i) != cpu::DecodeStatus::kOk) return false;
  if (i.opcode == Opcode::kInvalid || instruction_excluded(i)) return false;
  // Outside of 64-bit code Intel says #UD before #GP.
  if (code32() && i.opcode == Opcode::kSysret) return false;
  if (i.memory.absolute64) {
    const u64 at = kData + random_.below(kWritablePages * kPageSize + 64);
    base::store<u64>(bytes + i.length - 8, at);
    if (cpu::decode(bytes, 15, mode_, i) != cpu::DecodeStatus::kOk) return false;
  } else if (row.operands[0] == Ob || row.operands[0] == Ov || row.operands[1] == Ob ||
             row.operands[1] == Ov) {
    if (i.address_size == 2) return false;
    base::store<u32>(bytes + i.length - 4,
                     static_cast<u32>(kData) + random_.below(kWritablePages * kPageSize));
    if (cpu::decode(bytes, 15, mode_, i) != cpu::DecodeStatus::kOk) return false;
  }
  step.length = i.length;
  if (i.memory.base == cpu::kRipRegister) {
    step.rip_at = static_cast<u8>(n - 4);
    step.rip_target = kCodePage + base::load<u32>(bytes + n - 4);
  }
  if (i.operand_count != 0 && i.operands[0].kind == OperandKind::kRelative)
    step.branch_size = row.operands[0] == Jb ? 1 : 4;
  std::memcpy(step.bytes, bytes, sizeof(step.bytes));
  note_written(i, known);
  return true;
}

Step Generator::decoded(std::initializer_list<u8> bytes) const {
  Step step{};
  std::copy(bytes.begin(), bytes.end(), step.bytes);
  step.length = static_cast<u8>(bytes.size());
  cpu::decode(step.bytes, 15, mode_, step.instruction);
  return step;
}

// Runs the whole sequence again a few times, counted in the last word of the data: chained and hot
// blocks are another path through an engine than code that is seen once.
void Generator::add_loop(Sequence& sequence) {
  const u32 counter = static_cast<u32>(kData + kWritablePages * kPageSize - 16);
  Step set = decoded({0xc7, 0x04, 0x25, 0, 0, 0, 0, 0, 0, 0, 0});  // mov dword [counter], n
  base::store<u32>(set.bytes + 3, counter);
  set.bytes[7] = static_cast<u8>(2 + random_.below(20));
  Step count = decoded({0x83, 0x2c, 0x25, 0, 0, 0, 0, 1});  // sub dword [counter], 1
  base::store<u32>(count.bytes + 3, counter);
  Step jump = decoded({0x0f, 0x85, 0, 0, 0, 0});  // jnz to the second step
  jump.branch_size = 4;
  for (Step& step : sequence.steps)
    if (step.target >= 0) ++step.target;
  sequence.steps.insert(sequence.steps.begin(), set);
  sequence.steps.push_back(count);
  sequence.steps.push_back(jump);
  sequence.steps.back().target = 1;
}

// A relative branch goes to a later step, or to the end.
void Generator::place_branch(Sequence& sequence, size_t step) {
  Step& s = sequence.steps[step];
  if (s.branch_size == 0) return;
  s.target =
      static_cast<int>(step + 1 + random_.below(static_cast<u32>(sequence.steps.size() - step)));
}

// Which flags are undefined where, and a CMP before any instruction that would read one.
void Generator::resolve_flags(Sequence& sequence) {
  for (int rounds = 0; rounds < 40; ++rounds) {
    const int reader = sequence.propagate_flags();
    if (reader < 0) return;
    const Step compare = decoded({0x39, 0xc8});  // cmp eax, ecx
    sequence.steps.insert(sequence.steps.begin() + reader, compare);
    for (size_t k = 0; k < sequence.steps.size(); ++k)
      if (sequence.steps[k].target > reader) ++sequence.steps[k].target;
  }
}

Sequence Generator::sequence() {
  Sequence s;
  Registers known;
  random_state(s.state, known);
  const u32 wanted = 1 + random_.below(8);
  for (u32 tries = 0; s.steps.size() < wanted && tries < 100; ++tries) {
    if (random_.percent(1)) {  // PUSH of harmless flags, POPF
      Step push = decoded({0x68, 0, 0, 0, 0});
      const Step pop = decoded({0x9d});
      base::store<u32>(push.bytes + 1, static_cast<u32>(random_.next()) &
                                           (cpu::kArithmeticFlags | cpu::kFlagDf | cpu::kFlagIf));
      s.steps.push_back(push);
      s.steps.push_back(pop);
      continue;
    }
    Step step;
    if (!random_step(known, step)) continue;
    const auto open = [](const Step& before) { return leaves_c1_open(before.instruction.opcode); };
    if (step.instruction.opcode == Opcode::kFnstsw &&
        std::any_of(s.steps.begin(), s.steps.end(), open))
      continue;
    s.steps.push_back(step);
  }
  for (size_t k = 0; k < s.steps.size(); ++k) place_branch(s, k);
  // Nothing may jump between the PUSH and the POPF.
  for (Step& step : s.steps)
    if (step.target >= 0 && static_cast<size_t>(step.target) < s.steps.size() &&
        s.steps[static_cast<size_t>(step.target)].instruction.opcode == Opcode::kPopf)
      ++step.target;
  const auto is = [&](auto predicate) {
    return std::any_of(s.steps.begin(), s.steps.end(), predicate);
  };
  const bool c1_seen =
      is([](const Step& step) { return leaves_c1_open(step.instruction.opcode); }) &&
      is([](const Step& step) { return step.instruction.opcode == Opcode::kFnstsw; });
  if (random_.percent(6) && !c1_seen) add_loop(s);
  resolve_flags(s);
  s.state.cs = code32() ? kCode32 : kCode64;
  if (code32())
    for (u64& value : s.state.gpr) value &= 0xffffffff;
  s.state.rip = kCodePage + 16 * random_.below(64);
  if (random_.percent(2))
    s.state.rip = kCodePage + kPageSize - std::min<u32>(s.offset(s.steps.size()), 200);
  return s;
}

int Sequence::propagate_flags() {
  std::vector<u16> undefined(steps.size() + 1, 0);
  int reader = -1;
  for (size_t k = 0; k < steps.size(); ++k) {
    Step& s = steps[k];
    s.undefined_before = undefined[k];
    const cpu::FlagEffects e = cpu::flag_effects(s.instruction);
    if ((e.reads & undefined[k]) != 0 && reader < 0) reader = static_cast<int>(k);
    const u16 after = static_cast<u16>((undefined[k] & ~e.writes_always) | e.undefined);
    undefined[k + 1] |= after;
    if (s.target > static_cast<int>(k)) undefined[static_cast<size_t>(s.target)] |= after;
  }
  undefined_after = undefined.back();
  return reader;
}

u32 Sequence::offset(size_t step) const {
  u32 at = 0;
  for (size_t k = 0; k < step; ++k) at += steps[k].length;
  return at;
}

int Sequence::step_at(u64 rip) const {
  u32 at = 0;
  for (size_t k = 0; k <= steps.size(); ++k) {
    if (rip == state.rip + at) return static_cast<int>(k);
    if (k < steps.size()) at += steps[k].length;
  }
  return -1;
}

std::vector<u8> Sequence::code() const {
  std::vector<u8> out;
  for (const Step& s : steps) {
    out.insert(out.end(), s.bytes, s.bytes + s.length);
    const size_t end = out.size();
    if (s.branch_size != 0) {
      const i32 distance =
          static_cast<i32>(offset(static_cast<size_t>(s.target))) - static_cast<i32>(end);
      std::memcpy(&out[end - s.branch_size], &distance, s.branch_size);
    }
    if (s.rip_target != 0) {
      const u32 displacement = static_cast<u32>(s.rip_target - (state.rip + end));
      std::memcpy(&out[end - s.length + s.rip_at], &displacement, sizeof(displacement));
    }
  }
  return out;
}

}  // namespace smol::isa
