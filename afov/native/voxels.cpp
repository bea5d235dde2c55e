// Voxels and kernel maps: sort once, then merge. Every function has a NumPy twin in
// afov/voxels.py or afov/kernel_maps.py that gives the same result.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "shared.h"

namespace {

struct Item {
  uint64_t key;
  int64_t index;
};

// Sorts by key, stable, by digits; keys below 2^bits.
void sort(std::vector<Item> &items, int bits) {
  constexpr int kDigit = 11;
  std::vector<Item> other(items.size());
  for (int shift = 0; shift < bits; shift += kDigit) {
    std::vector<int64_t> place((1 << kDigit) + 1);
    const auto digit = [&](const Item &item) { return item.key >> shift & ((1 << kDigit) - 1); };
    for (const Item &item : items) ++place[digit(item) + 1];
    for (int d = 0; d < 1 << kDigit; ++d) place[d + 1] += place[d];
    for (const Item &item : items) other[place[digit(item)]++] = item;
    items.swap(other);
  }
}

// Keys in the order of the coordinates and only as wide as these need, so that sorting is short.
struct Box {
  int32_t low[3];
  int bits[3];

  Box(const int32_t *coords, int64_t n) : low{0, 0, 0}, bits{0, 0, 0} {
    for (int axis = 0; axis < 3 && n; ++axis) {
      int32_t high = low[axis] = coords[axis];
      for (int64_t i = 0; i < n; ++i) {
        low[axis] = std::min(low[axis], coords[3 * i + axis]);
        high = std::max(high, coords[3 * i + axis]);
      }
      while ((int64_t(high) - low[axis]) >> bits[axis]) ++bits[axis];
    }
  }

  uint64_t key(const int32_t *c) const {
    uint64_t key = c[0] - low[0];
    key = key << bits[1] | uint64_t(c[1] - low[1]);
    return key << bits[2] | uint64_t(c[2] - low[2]);
  }

  int width() const { return bits[0] + bits[1] + bits[2]; }
};

std::vector<Item> sorted(const int32_t *coords, int64_t n) {
  const Box box(coords, n);
  std::vector<Item> items(n);
  for (int64_t i = 0; i < n; ++i) items[i] = {box.key(coords + 3 * i), i};
  sort(items, box.width());
  return items;
}

int64_t packed(const int32_t *c) {
  constexpr int64_t kMiddle = 1 << 20;
  return (c[0] + kMiddle) << 42 | (c[1] + kMiddle) << 21 | (c[2] + kMiddle);
}

// Neighbours of one (x, y) column lie side by side, and as i grows every column's place only moves
// forward; each pair is entered both ways.
void find_neighbours(const int32_t *coords, int64_t n, int64_t kernel, int32_t *table) {
  const int64_t reach = kernel / 2, offsets = kernel * kernel * kernel, half = offsets / 2;
  const int64_t columns = kernel * kernel / 2 + 1;
  std::vector<int64_t> keys(n), delta(columns), place(columns);
  for (int64_t i = 0; i < n; ++i) keys[i] = packed(coords + 3 * i);
  for (int64_t c = 0; c < columns; ++c) {
    const int64_t column = columns - 1 + c;  // the voxel's own first, then those beyond
    delta[c] = ((column / kernel - reach) << 42) + ((column % kernel - reach) << 21) - reach;
  }
  std::fill_n(table, n * offsets, int32_t(n));
  for (int64_t i = 0; i < n; ++i) {
    table[i * offsets + half] = int32_t(i);
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t lowest = keys[i] + delta[c], first = (columns - 1 + c) * kernel;
      int64_t &at = place[c];
      while (at < n && keys[at] < lowest) ++at;
      for (int64_t j = at; j < n && keys[j] < lowest + kernel; ++j) {
        const int64_t k = first + keys[j] - lowest;
        if (k <= half) continue;
        table[i * offsets + k] = int32_t(j);
        table[j * offsets + offsets - 1 - k] = int32_t(i);
      }
    }
  }
}

}  // namespace

extern "C" {

// xyz: n rows, `step` floats apart; azimuth (n) radians, or null for a Cartesian grid. coords
// (n, 3), representative (n) and inverse (n) have room for as many voxels as points. Returns how
// many there are.
int64_t voxelize(const float *xyz, int64_t n, int64_t step, const float *azimuth,
                 const float *size, float reach, int32_t *coords, int64_t *representative,
                 int64_t *inverse) {
  std::vector<int32_t> cut;
  std::vector<int64_t> kept;
  cut.reserve(3 * n), kept.reserve(n);
  for (int64_t i = 0; i < n; ++i) {
    const float *p = xyz + step * i;
    inverse[i] = -1;
    if (!(std::fabs(p[0]) < reach && std::fabs(p[1]) < reach && std::fabs(p[2]) < reach)) continue;
    float place[3] = {p[0], p[1], p[2]};
    if (azimuth) {
      place[0] = std::sqrt(p[0] * p[0] + p[1] * p[1]);
      place[1] = azimuth[i] * 180.0f / float(M_PI);
    }
    for (int axis = 0; axis < 3; ++axis)
      cut.push_back(int32_t(std::floor(place[axis] / size[axis])));
    kept.push_back(i);
  }
  int64_t count = 0;
  uint64_t last = 0;
  for (const Item &item : sorted(cut.data(), kept.size())) {
    if (!count || item.key != last) {
      std::copy_n(cut.data() + 3 * item.index, 3, coords + 3 * count);
      representative[count++] = kept[item.index];
      last = item.key;
    }
    inverse[kept[item.index]] = count - 1;
  }
  return count;
}

// coords (n, 3), sorted; coarse (n, 3), down (n, 8) and up (n) have room for n parents. Returns
// how many there are.
int64_t stride(const int32_t *coords, int64_t n, int32_t *coarse, int32_t *down, int32_t *up) {
  std::vector<int32_t> parents(3 * n);
  for (int64_t i = 0; i < 3 * n; ++i) parents[i] = coords[i] >> 1;
  int64_t count = 0;
  uint64_t last = 0;
  for (const Item &item : sorted(parents.data(), n)) {
    if (!count || item.key != last) {
      std::copy_n(parents.data() + 3 * item.index, 3, coarse + 3 * count);
      std::fill_n(down + 8 * count++, 8, int32_t(n));
      last = item.key;
    }
    const int32_t *c = coords + 3 * item.index;
    const int64_t child = (c[0] & 1) * 4 + (c[1] & 1) * 2 + (c[2] & 1);
    down[8 * (count - 1) + child] = int32_t(item.index);
    up[item.index] = int32_t(8 * (count - 1) + child);
  }
  return count;
}

// Of each level: coords (n, 3), sorted, and table (n, kernel^3).
void neighbours(const int32_t *const *coords, const int64_t *counts, int64_t levels,
                int64_t kernel, int32_t *const *tables) {
  run_parts(levels, [&](int64_t i) { find_neighbours(coords[i], counts[i], kernel, tables[i]); });
}
}
