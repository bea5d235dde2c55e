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

using Clock = std::chrono::steady_clock;
constexpr auto kPatience = std::chrono::microseconds(200);
constexpr unsigned kMost = 8;

// Waits until done() holds; false when patience ran out.
template <typename Done>
bool spin(const Done &done) {
  const auto until = Clock::now() + kPatience;
  do {
    for (int i = 0; i < 64; ++i)
      if (done()) return true;
  } while (Clock::now() < until);
  return false;
}

class Team {
 public:
  explicit Team(unsigned threads) : size(threads) {
    for (unsigned i = 1; i < threads; ++i) others_.emplace_back([this] { serve(); });
  }

  ~Team() {
    {
      std::lock_guard<std::mutex> hold(state_);
      ended_ = true;
      ++round_;
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
    {
      std::lock_guard<std::mutex> hold(state_);
      part_ = &part, parts_ = parts, next_ = 0, busy_ = int(size) - 1;
      ++round_;
    }
    wake_.notify_all();
    take();
    while (!spin([this] { return busy_ == 0; })) std::this_thread::yield();
  }

  const unsigned size;

 private:
  void take() {
    for (int64_t i = next_++; i < parts_; i = next_++) (*part_)(i);
  }

  void serve() {
    for (uint64_t seen = 0;; ++seen) {
      if (!spin([&] { return round_ != seen; })) {
        std::unique_lock<std::mutex> hold(state_);
        wake_.wait(hold, [&] { return round_ != seen; });
      }
      if (ended_) return;
      take();
      --busy_;
    }
  }

  std::mutex turn_, state_;
  std::condition_variable wake_;
  const std::function<void(int64_t)> *part_ = nullptr;
  int64_t parts_ = 0;
  std::vector<std::thread> others_;
  std::atomic<bool> ended_{false};
  std::atomic<int> busy_{0};
  std::atomic<int64_t> next_{0};
  std::atomic<uint64_t> round_{0};
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
