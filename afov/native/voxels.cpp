// Voxels and kernel maps: sort once, then merge. Every function has a NumPy twin in
// afov/voxels.py or afov/kernel_maps.py that gives the same result.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "shared.h"
#include "vectors.h"

namespace {

// Cells of voxels, by axis: n of each.
using Cells = std::array<std::vector<int32_t>, 3>;

// The cell of each point, and whether it is within reach; else the cell says nothing.
WIDE void cut(const float *xyz, int64_t n, int64_t step, const float *azimuth, const float *size,
              float reach, Cells &cells, std::vector<uint8_t> &near) {
  const float sizes[3] = {size[0], size[1], size[2]};
  int32_t *const first = cells[0].data(), *const second = cells[1].data();
  int32_t *const third = cells[2].data();
  uint8_t *const is_near = near.data();
  for (int64_t i = 0; i < n; ++i) {
    float x = xyz[step * i], y = xyz[step * i + 1], z = xyz[step * i + 2];
    const bool within = std::fabs(x) < reach && std::fabs(y) < reach && std::fabs(z) < reach;
    if (azimuth) x = std::sqrt(x * x + y * y), y = azimuth[i] * 180.0f / float(M_PI);
    first[i] = int32_t(std::floor(within ? x / sizes[0] : 0));
    second[i] = int32_t(std::floor(within ? y / sizes[1] : 0));
    third[i] = int32_t(std::floor(within ? z / sizes[2] : 0));
    is_near[i] = within;
  }
}

// Keys in the order of the cells and only as wide as these need, so that sorting is short.
struct Box {
  int32_t low[3];
  int bits[3];

  Box(const Cells &cells, int64_t n) : low{0, 0, 0}, bits{0, 0, 0} {
    for (int axis = 0; axis < 3 && n; ++axis) {
      const auto ends = std::minmax_element(cells[axis].begin(), cells[axis].begin() + n);
      low[axis] = *ends.first;
      while ((int64_t(*ends.second) - low[axis]) >> bits[axis]) ++bits[axis];
    }
  }

  uint64_t key(const Cells &cells, int64_t i) const {
    uint64_t key = cells[0][i] - low[0];
    key = key << bits[1] | uint64_t(cells[1][i] - low[1]);
    return key << bits[2] | uint64_t(cells[2][i] - low[2]);
  }

  int width() const { return bits[0] + bits[1] + bits[2]; }
};

// Sorts words by their bits from `low` to `high`, stable, by digits.
template <typename Word>
void sort(std::vector<Word> &words, int low, int high) {
  constexpr int kMost = 11;
  std::vector<Word> other(words.size());
  const int passes = (high - low + kMost - 1) / kMost;
  for (int pass = 0; pass < passes; ++pass) {
    const int shift = low + (high - low) * pass / passes;
    const int digits = low + (high - low) * (pass + 1) / passes - shift;
    uint32_t place[(1 << kMost) + 1] = {};
    const auto digit = [&](Word word) { return uint32_t(word >> shift) & ((1u << digits) - 1); };
    for (const Word &word : words) ++place[digit(word) + 1];
    for (int d = 0; d < 1 << digits; ++d) place[d + 1] += place[d];
    for (const Word &word : words) other[place[digit(word)]++] = word;
    words.swap(other);
  }
}

// Calls each(i, fresh) for all cells in their order, of equal ones the first first; `fresh`: no
// equal one came before.
template <typename Word, typename Each>
void in_order(const Cells &cells, int64_t n, const Box &box, int index_bits, const Each &each) {
  std::vector<Word> words(n);
  for (int64_t i = 0; i < n; ++i) words[i] = Word(box.key(cells, i)) << index_bits | Word(i);
  sort(words, index_bits, index_bits + box.width());
  Word last = 0;
  for (int64_t i = 0; i < n; ++i) {
    const Word key = words[i] >> index_bits;
    each(int64_t(words[i] & ((Word(1) << index_bits) - 1)), i == 0 || key != last);
    last = key;
  }
}

// Key and index in one word; most sweeps' fit in 64 bits.
template <typename Each>
void in_order(const Cells &cells, int64_t n, const Each &each) {
  const Box box(cells, n);
  int index_bits = 1;
  while (n >> index_bits) ++index_bits;
  if (box.width() + index_bits <= 64)
    in_order<uint64_t>(cells, n, box, index_bits, each);
  else
    in_order<unsigned __int128>(cells, n, box, index_bits, each);
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
  Cells cells;
  for (auto &axis : cells) axis.resize(n);
  std::vector<uint8_t> near(n);
  cut(xyz, n, step, azimuth, size, reach, cells, near);
  std::vector<int64_t> kept(n);
  int64_t number = 0, count = 0;
  for (int64_t i = 0; i < n; ++i) {
    for (auto &axis : cells) axis[number] = axis[i];
    kept[number] = i;
    number += near[i];
  }
  std::fill_n(inverse, n, -1);
  in_order(cells, number, [&](int64_t i, bool fresh) {
    if (fresh) {
      for (int axis = 0; axis < 3; ++axis) coords[3 * count + axis] = cells[axis][i];
      representative[count++] = kept[i];
    }
    inverse[kept[i]] = count - 1;
  });
  return count;
}

// coords (n, 3), sorted; coarse (n, 3), down (n, 8) and up (n) have room for n parents. Returns
// how many there are.
int64_t stride(const int32_t *coords, int64_t n, int32_t *coarse, int32_t *down, int32_t *up) {
  Cells parents;
  for (int axis = 0; axis < 3; ++axis) {
    parents[axis].resize(n);
    for (int64_t i = 0; i < n; ++i) parents[axis][i] = coords[3 * i + axis] >> 1;
  }
  int64_t count = 0;
  in_order(parents, n, [&](int64_t i, bool fresh) {
    if (fresh) {
      for (int axis = 0; axis < 3; ++axis) coarse[3 * count + axis] = parents[axis][i];
      std::fill_n(down + 8 * count++, 8, int32_t(n));
    }
    const int32_t *c = coords + 3 * i;
    const int64_t child = (c[0] & 1) * 4 + (c[1] & 1) * 2 + (c[2] & 1);
    down[8 * (count - 1) + child] = int32_t(i);
    up[i] = int32_t(8 * (count - 1) + child);
  });
  return count;
}

// Of each level: coords (n, 3), sorted, and table (n, kernel^3).
void neighbours(const int32_t *const *coords, const int64_t *counts, int64_t levels,
                int64_t kernel, int32_t *const *tables) {
  run_parts(levels, [&](int64_t i) { find_neighbours(coords[i], counts[i], kernel, tables[i]); });
}
}
