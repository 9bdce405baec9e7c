// Sequences are made and started on the processor a batch at a time; while the child runs one
// batch, the interpreter runs the one before. A mismatch is narrowed down to the first instruction
// that gives another state, whose input state then comes from the processor itself.
#include "differential/fuzz.h"

#include <fmt/format.h>

namespace smol::isa {
namespace {

constexpr u64 kLimit =
    60000;  // instructions (iterations of repeated ones included) that one sequence may take

class Fuzzer {
 public:
  Fuzzer(const FuzzOptions& options, NativeRunner& native, SoftMachine& soft)
      : options_(options),
        native_(native),
        soft_(soft),
        generator_(options.features, options.seed, options.code32) {
    if (options.only != cpu::Opcode::kInvalid) generator_.restrict_to(options.only);
  }

  FuzzResult run() {
    while (result_.sequences < options_.sequences) batch();
    return std::move(result_);
  }

 private:
  void batch() {
    const u32 count =
        static_cast<u32>(std::min<u64>(kBatch, options_.sequences - result_.sequences));
    generator_.fill_data(native_.data());
    std::memcpy(data_, native_.data(), kDataSize);
    std::vector<Sequence> sequences;
    for (u32 i = 0; i < count; ++i) {
      sequences.push_back(generator_.sequence());
      put_request(i, sequences.back());
    }
    native_.start(count);
    std::vector<Outcome> outcomes(count);
    if (memory_.size() != count * kWritten) memory_.resize(count * kWritten);
    for (u32 i = 0; i < count; ++i) {
      outcomes[i] = run_soft(sequences[i], sequences[i].state, data_);
      std::memcpy(&memory_[i * kWritten], soft_.data(), kWritten);
    }
    native_.finish();
    std::vector<std::pair<u32, std::string>> bad;
    for (u32 i = 0; i < count; ++i) {
      count_one(sequences[i], native_.answer(i).outcome);
      std::string difference =
          compare(sequences[i], native_.answer(i), outcomes[i], &memory_[i * kWritten]);
      if (!difference.empty()) bad.emplace_back(i, std::move(difference));
    }
    for (auto& [i, difference] : bad) mismatch(sequences[i], difference);
  }

  void count_one(const Sequence& sequence, const Outcome& native) {
    ++result_.sequences;
    result_.instructions += sequence.steps.size();
    if (!native.ended) {
      ++result_.skipped;
      return;
    }
    ++result_.ends[native.vector];
    for (const Step& step : sequence.steps)
      ++result_.opcodes[cpu::opcode_name(step.instruction.opcode)];
  }

  void put_request(u32 i, const Sequence& sequence) {
    NativeRequest& request = native_.request(i);
    const std::vector<u8> code = sequence.code();
    request.state = sequence.state;
    request.size = static_cast<u32>(code.size());
    std::memcpy(request.code, code.data(), code.size());
  }

  Outcome run_soft(const Sequence& sequence, const UserState& state, const u8* data) {
    const std::vector<u8> code = sequence.code();
    std::memcpy(soft_.data(), data, kDataSize);
    soft_.set_code(code.data(), static_cast<u32>(code.size()),
                   static_cast<u32>(sequence.state.rip & (kPageSize - 1)));
    return soft_.run(state, kLimit);
  }

  // Runs one sequence on both, from data_; fills answer_.
  std::string run_both(const Sequence& sequence, const u8* data) {
    std::memcpy(native_.data(), data, kDataSize);
    put_request(0, sequence);
    native_.start(1);
    native_.finish();
    answer_ = native_.answer(0);
    const Outcome outcome = run_soft(sequence, sequence.state, data);
    return compare(sequence, answer_, outcome, soft_.data());
  }

  // The first prefix that differs tells the guilty step; the processor's state before it makes a
  // sequence of one.
  void mismatch(const Sequence& sequence, const std::string& difference) {
    ++result_.mismatches;
    Sequence one = sequence;
    std::vector<u8> data(data_, data_ + kDataSize);
    std::string shown = difference;
    for (size_t k = 1; k <= sequence.steps.size(); ++k) {
      Sequence prefix = sequence;
      prefix.steps.resize(k);
      for (Step& step : prefix.steps) step.target = std::min<int>(step.target, static_cast<int>(k));
      prefix.propagate_flags();
      const Outcome before = answer_.outcome;
      std::vector<u8> data_before(answer_.data, answer_.data + kWritten);
      const std::string now = run_both(prefix, data_);
      if (now.empty()) continue;
      one = prefix;
      shown = now;
      if (k > 1 && before.vector == 3 &&
          before.state.rip == sequence.state.rip + sequence.offset(k - 1) + 1) {
        Sequence single = prefix;
        single.steps.erase(single.steps.begin(), single.steps.end() - 1);
        single.steps[0].target = std::min(single.steps[0].target, 1);
        single.state = before.state;
        single.state.rip = sequence.state.rip + sequence.offset(k - 1);
        single.state.rflags &= ~u64{1 << 16};
        std::memcpy(data.data(), data_before.data(), kWritten);
        const std::string again = run_both(single, data.data());
        if (!again.empty()) {
          one = single;
          shown = again;
        }
      }
      break;
    }
    const Step& last = one.steps.back();
    const std::string name = cpu::opcode_name(last.instruction.opcode);
    const u64 seen = ++result_.guilty[name];
    if (seen > 3 || result_.guilty.size() > options_.reports) return;
    result_.report +=
        fmt::format("mismatch in {} ({} of {} steps):\n{}{}{}\n", name, one.steps.size(),
                    sequence.steps.size(), disassemble(one), shown, describe(one.state));
  }

  static constexpr size_t kWritten = kWritablePages * kPageSize;
  const FuzzOptions& options_;
  NativeRunner& native_;
  SoftMachine& soft_;
  Generator generator_;
  FuzzResult result_;
  NativeAnswer answer_;
  u8 data_[kDataSize];
  std::vector<u8> memory_;
};

}  // namespace

Result<FuzzResult> fuzz(const FuzzOptions& options) {
  TRY_ASSIGN(auto native, NativeRunner::create());
  auto soft = SoftMachine::create(options.features);
  return std::make_unique<Fuzzer>(options, *native, *soft)->run();
}

}  // namespace smol::isa
