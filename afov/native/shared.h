// What the compiled loops share: work in parts, on all cores.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>

// Runs part(i) for i in 0..parts, by this thread and those that wait for work. They are handed out
// in order.
void run_parts(int64_t parts, const std::function<void(int64_t)> &part);

// Runs work(begin, end) over pieces of 0..count. They are handed out as threads come free, so a
// core that others keep busy holds nobody up.
template <typename Work>
void shared(int64_t count, int64_t piece, const Work &work) {
  run_parts((count + piece - 1) / piece,
            [&](int64_t i) { work(i * piece, std::min(count, (i + 1) * piece)); });
}

// Waits until done() holds; false when patience ran out.
template <typename Done>
bool spin(std::chrono::microseconds patience, const Done &done) {
  if (done()) return true;
  const auto until = std::chrono::steady_clock::now() + patience;
  do {
    for (int i = 0; i < 64; ++i)
      if (done()) return true;
  } while (std::chrono::steady_clock::now() < until);
  return false;
}
