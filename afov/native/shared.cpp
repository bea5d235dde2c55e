// Threads that stay: between two layers of the network they spin for a moment instead of going to
// sleep, because waking one up takes as long as a small layer.
#include "shared.h"

#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace {

constexpr auto kPatience = std::chrono::microseconds(200);
constexpr unsigned kMost = 8;

class Team {
 public:
  explicit Team(unsigned threads) : size(threads) {
    for (unsigned i = 1; i < threads; ++i) others_.emplace_back([this] { serve(); });
  }

  ~Team() {
    {
      std::lock_guard<std::mutex> hold(state_);
      ended_ = true;
    }
    wake_.notify_all();
    for (auto &other : others_) other.join();
  }

  void run(int64_t parts, const std::function<void(int64_t)> &part) {
    if (parts <= 1 || size <= 1) {
      for (int64_t i = 0; i < parts; ++i) part(i);
      return;
    }
    std::lock_guard<std::mutex> one_at_a_time(turn_);
    part_ = &part, parts_ = parts, unfinished_ = parts;
    {
      std::lock_guard<std::mutex> hold(state_);
      open_ = uint64_t(++round_) << 32 | uint64_t(parts);
    }
    wake_.notify_all();
    take();
    // For parts that others began, not for the others: one that was taken off its core in the
    // meantime holds nobody up.
    while (!spin(kPatience, [this] { return unfinished_ == 0; })) std::this_thread::yield();
  }

  const unsigned size;

 private:
  // A part is taken by counting down what is left. As long as something is, the round goes on, so
  // part_ and parts_ are the round's own if the count had not changed by the time it is lowered.
  void take() {
    for (uint64_t open = open_; left(open); open = open_) {
      const std::function<void(int64_t)> *part = part_;
      const int64_t index = parts_ - left(open);
      if (!open_.compare_exchange_strong(open, open - 1)) continue;
      (*part)(index);
      --unfinished_;
    }
  }

  void serve() {
    const auto called = [this] { return left(open_) || ended_; };
    while (!ended_) {
      if (!spin(kPatience, called)) {
        std::unique_lock<std::mutex> hold(state_);
        wake_.wait(hold, called);
      }
      take();
    }
  }

  static int64_t left(uint64_t open) { return uint32_t(open); }

  std::mutex turn_, state_;
  std::condition_variable wake_;
  std::atomic<const std::function<void(int64_t)> *> part_{nullptr};
  std::atomic<int64_t> parts_{0}, unfinished_{0};
  std::atomic<uint64_t> open_{0};  // round and how many parts nobody has taken yet, 32 bits each
  uint32_t round_ = 0;
  std::atomic<bool> ended_{false};
  std::vector<std::thread> others_;
};

std::atomic<unsigned> wanted{std::min(std::max(std::thread::hardware_concurrency(), 1u), kMost)};

}  // namespace

void run_parts(int64_t parts, const std::function<void(int64_t)> &part) {
  // The last team is never freed: its threads outlive every other static. A forked child has none
  // of them, and makes its own.
  static std::mutex making;
  static std::shared_ptr<Team> *team = nullptr;
  static pid_t owner = 0;
  std::shared_ptr<Team> mine;
  {
    std::lock_guard<std::mutex> hold(making);
    if (owner != getpid()) team = new std::shared_ptr<Team>, owner = getpid();
    if (!*team || (*team)->size != wanted) *team = std::make_shared<Team>(wanted);
    mine = *team;
  }
  mine->run(parts, part);
}

// How many threads work from now on; all cores, at most 8, where nobody says.
extern "C" void use_threads(int64_t threads) {
  wanted = unsigned(std::clamp<int64_t>(threads, 1, kMost));
}
