// What the compiled loops share.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

// Runs work(begin, end) over parts of 0..count, on all cores where there is enough of it. Parts
// are handed out as threads come free, so a core that others keep busy holds nobody up.
template <typename Work>
void shared(int64_t count, int64_t part, const Work &work) {
  const int64_t parts = (count + part - 1) / part;
  const int64_t cores = std::max<int64_t>(1, std::thread::hardware_concurrency());
  std::atomic<int64_t> next{0};
  const auto take = [&] {
    for (int64_t i = next++; i < parts; i = next++)
      work(i * part, std::min(count, (i + 1) * part));
  };
  std::vector<std::thread> others;
  for (int64_t i = 1; i < std::min<int64_t>({cores, parts, 8}); ++i) others.emplace_back(take);
  take();
  for (std::thread &other : others) other.join();
}
