// A layer of the sparse network on the CPU: a product per kernel offset, over the neighbours that
// exist. Output rows go in blocks that stay in the cache; within one, the rows that an offset
// moves are multiplied where they lie, a few at a time, sums in registers.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=fast")  // nothing here must equal NumPy to the bit
#endif
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "shared.h"
#include "vectors.h"

namespace {

// Columns [0, channels) of rows that lie `step` floats apart.
struct Rows {
  const float *data;
  int64_t step, channels;
};

// out[pair.to] += in[pair.from] W for `count` pairs and eights * 8 columns; weight: their first
// panel, the others `step` floats apart.
template <typename Lanes, int count, int eights>
INLINE void tile(const Rows &in, const Pair *pairs, const float *weight, int64_t step, float *out,
                 int64_t width) {
  using V = typename Lanes::V;
  using Half = Eight::V;
  constexpr int kFloats = sizeof(V) / sizeof(float), wide = eights * kLanes / kFloats;
  constexpr bool half = eights * kLanes > wide * kFloats;  // what does not fill a vector
  const float *from[count];
  float *to[count];
  V sum[count][wide + half];
  Half last[count];
  for (int r = 0; r < count; ++r) {
    from[r] = in.data + pairs[r].from * in.step;
    to[r] = out + pairs[r].to * width;
    for (int v = 0; v < wide; ++v) sum[r][v] = *(const V *)(to[r] + v * kFloats);
    if (half) last[r] = *(const Half *)(to[r] + wide * kFloats);
  }
  for (int64_t c = 0; c < in.channels; ++c, weight += kPanel)
    for (int r = 0; r < count; ++r) {
      const V x = from[r][c] + V{};
      for (int v = 0; v < wide; ++v)
        sum[r][v] += x * *(const V *)(weight + v * kFloats / kPanel * step + v * kFloats % kPanel);
      if (half) last[r] += *(const Half *)&x * *(const Half *)(weight + wide * step);
    }
  for (int r = 0; r < count; ++r) {
    for (int v = 0; v < wide; ++v) *(V *)(to[r] + v * kFloats) = sum[r][v];
    if (half) *(Half *)(to[r] + wide * kFloats) = last[r];
  }
}

template <typename Lanes, int eights>
INLINE void panels(const Rows &in, const Pair *pairs, int64_t count, const float *weight,
                   int64_t step, float *out, int64_t width) {
  for (; count >= kTile<Lanes>; count -= kTile<Lanes>, pairs += kTile<Lanes>)
    tile<Lanes, kTile<Lanes>, eights>(in, pairs, weight, step, out, width);
  switch (count) {
    case 5: return tile<Lanes, 5, eights>(in, pairs, weight, step, out, width);
    case 4: return tile<Lanes, 4, eights>(in, pairs, weight, step, out, width);
    case 3: return tile<Lanes, 3, eights>(in, pairs, weight, step, out, width);
    case 2: return tile<Lanes, 2, eights>(in, pairs, weight, step, out, width);
    case 1: return tile<Lanes, 1, eights>(in, pairs, weight, step, out, width);
  }
}

// All columns; weight (panels, channels of all inputs, kPanel), from this input's first channel.
template <typename Lanes>
INLINE void product(const Rows &in, const Pair *pairs, int64_t count, const float *weight,
                    int64_t channels, float *out, int64_t width) {
  const int64_t step = channels * kPanel, all = (width + kPanel - 1) / kPanel;
  const int64_t groups = (all + kPanels<Lanes> - 1) / kPanels<Lanes>;
  for (int64_t group = 0, first = 0, last; group < groups; ++group, first = last) {
    last = (group + 1) * all / groups;
    const float *w = weight + first * step;
    float *to = out + first * kPanel;
    const int64_t eights = (std::min(width, last * kPanel) - first * kPanel) / kLanes;
    if constexpr (kPanels<Lanes> == 4) switch (eights) {
      case 8: panels<Lanes, 8>(in, pairs, count, w, step, to, width); break;
      case 7: panels<Lanes, 7>(in, pairs, count, w, step, to, width); break;
      case 6: panels<Lanes, 6>(in, pairs, count, w, step, to, width); break;
      case 5: panels<Lanes, 5>(in, pairs, count, w, step, to, width); break;
      case 4: panels<Lanes, 4>(in, pairs, count, w, step, to, width); break;
      case 3: panels<Lanes, 3>(in, pairs, count, w, step, to, width); break;
    }
    if (eights == 2) panels<Lanes, 2>(in, pairs, count, w, step, to, width);
    if (eights == 1) panels<Lanes, 1>(in, pairs, count, w, step, to, width);
  }
}

using Product = void (*)(const Rows &, const Pair *, int64_t, const float *, int64_t, float *,
                         int64_t);

void product_anywhere(const Rows &in, const Pair *pairs, int64_t count, const float *weight,
                      int64_t channels, float *out, int64_t width) {
  product<Four>(in, pairs, count, weight, channels, out, width);
}

#ifdef X86
__attribute__((target("avx2,fma"))) void product_avx2(const Rows &in, const Pair *pairs,
                                                      int64_t count, const float *weight,
                                                      int64_t channels, float *out,
                                                      int64_t width) {
  product<Eight>(in, pairs, count, weight, channels, out, width);
}

__attribute__((target("avx512vl,fma"))) void product_avx512(const Rows &in, const Pair *pairs,
                                                       int64_t count, const float *weight,
                                                       int64_t channels, float *out,
                                                       int64_t width) {
  product<Sixteen>(in, pairs, count, weight, channels, out, width);
}
#else
constexpr Product product_avx2 = product_anywhere, product_avx512 = product_anywhere;
#endif

Product widest() {
  return lanes() == 16 ? product_avx512 : lanes() == 8 ? product_avx2 : product_anywhere;
}

void make_unit(float *row, int64_t width) {
  float sums[kLanes] = {};  // side by side, or every addition would wait for the one before
  int64_t c = 0;
  for (; c + kLanes <= width; c += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += row[c + lane] * row[c + lane];
  for (; c < width; ++c) sums[0] += row[c] * row[c];
  const float square = std::accumulate(sums, sums + kLanes, 0.0f);
  const float scale = 1 / std::max(std::sqrt(square), 1e-9f);
  for (c = 0; c < width; ++c) row[c] *= scale;
}

// e^x to a unit in the last place or two (as Cephes does it), for x <= 0.
INLINE float exponential(float x) {
  constexpr float kRound = 12582912;  // 1.5 * 2^23: adding it rounds
  const float whole = (std::max(x, -87.0f) * 1.44269504f + kRound) - kRound;
  const float rest = std::max(x, -87.0f) - whole * 0.693359375f + whole * 2.12194440e-4f;
  const float more =
      ((((1.9875691500e-4f * rest + 1.3981999507e-3f) * rest + 8.3334519073e-3f) * rest +
        4.1665795894e-2f) * rest + 1.6666665459e-1f) * rest + 5.0000001201e-1f;
  const int32_t bits = (int32_t(whole) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return (more * rest * rest + rest + 1) * power;
}

// cosines (phrases, kPanel); best, sure (kPanel): the class with the nearest phrase, of equally
// near ones the first, and its softmax.
WIDE void choose(float *cosines, const int64_t *ends, int64_t classes, float sharpness,
                 int32_t *best, float *sure) {
  float most[kPanel], sum[kPanel] = {};
  std::fill_n(most, kPanel, -std::numeric_limits<float>::infinity());
  std::fill_n(best, kPanel, 1);
  for (int64_t k = 0, at = 0; k < classes; ++k) {
    float *of_class = cosines + k * kPanel, nearest[kPanel];  // k <= at: what is read is kept
    for (int64_t i = 0; i < kPanel; ++i) nearest[i] = cosines[at * kPanel + i];
    for (; at < ends[k]; ++at)
      for (int64_t i = 0; i < kPanel; ++i)
        nearest[i] = std::max(nearest[i], cosines[at * kPanel + i]);
    for (int64_t i = 0; i < kPanel; ++i) {
      best[i] = nearest[i] > most[i] ? int32_t(k + 1) : best[i];
      most[i] = std::max(most[i], nearest[i]);
      of_class[i] = nearest[i];
    }
  }
  for (int64_t k = 0; k < classes; ++k)
    for (int64_t i = 0; i < kPanel; ++i)
      sum[i] += exponential((cosines[k * kPanel + i] - most[i]) * sharpness);
  for (int64_t i = 0; i < kPanel; ++i) sure[i] = 1 / sum[i];
}

// What pairs_of says, of a table that from(row, k) looks up.
template <typename From>
void list_pairs(int64_t rows, int64_t offsets, int64_t missing, int64_t block, const From &from,
                Pair *pairs, int64_t *starts, int32_t *reach) {
  shared(rows, block, [&](int64_t begin, int64_t end) {
    Pair *const first = pairs + begin * offsets, *next = first;
    int64_t *at = starts + begin / block * (offsets + 1);
    for (int64_t k = 0; k < offsets; ++k) {
      *at++ = next - pairs;
      for (int64_t row = begin; row < end; ++row) {
        *next = {int32_t(row), from(row, k)};
        next += next->from != missing;
      }
    }
    *at = next - pairs;
    int32_t low = std::numeric_limits<int32_t>::max(), high = -1;
    for (const Pair *pair = first; pair < next; ++pair)
      low = std::min(low, pair->from), high = std::max(high, pair->from);
    reach[begin / block * 2] = low, reach[begin / block * 2 + 1] = high;
  });
}

std::atomic<int64_t> most_lanes{16};

}  // namespace

int64_t lanes() {
#ifdef X86
  const bool fma = __builtin_cpu_supports("fma");
  if (most_lanes >= 16 && fma && __builtin_cpu_supports("avx512vl")) return 16;
  if (most_lanes >= 8 && fma && __builtin_cpu_supports("avx2")) return 8;
#endif
  return 4;
}

extern "C" {

// At most this many floats a vector from now on: 16, 8 or 4.
void use_lanes(int64_t most) { most_lanes = most; }

// table (rows, offsets), `missing` where there is no neighbour, to the pairs that exist: those of
// a block of rows begin where its part of the table does, and lie by offset. starts (blocks,
// offsets + 1): where each offset's begin, and the last one's end. reach (blocks, 2): the first and
// the last row that a block reads.
void pairs_of(const int32_t *table, int64_t rows, int64_t offsets, int64_t missing, int64_t block,
              Pair *pairs, int64_t *starts, int32_t *reach) {
  list_pairs(
      rows, offsets, missing, block,
      [=](int64_t row, int64_t k) { return table[row * offsets + k]; }, pairs, starts, reach);
}

// The same of up (rows): each row's parent, in the offset of the child that it is.
void pairs_of_parents(const int32_t *up, int64_t rows, int64_t block, Pair *pairs, int64_t *starts,
                      int32_t *reach) {
  list_pairs(
      rows, 8, -1, block,
      [=](int64_t row, int64_t k) { return (up[row] & 7) == k ? up[row] >> 3 : -1; }, pairs,
      starts, reach);
}

// out (rows, width) = bias + plus + sum over offsets and inputs, and not below 0 if `relu` says so.
// x and skip (none: 0 channels) are the two halves of the input's channels; weight (offsets,
// panels, channels, 16); width: a multiple of 8; plus (rows, width) or null.
void sparse_layer(const float *x, int64_t x_step, int64_t x_channels, const float *skip,
                  int64_t skip_step, int64_t skip_channels, const Pair *pairs,
                  const int64_t *starts, int64_t offsets, int64_t block, const float *weight,
                  const float *bias, const float *plus, int64_t relu, float *out, int64_t rows,
                  int64_t width) {
  const Product multiply = widest();
  const Rows in[] = {{x, x_step, x_channels}, {skip, skip_step, skip_channels}};
  const int64_t channels = x_channels + skip_channels;
  const int64_t per_offset = (width + kPanel - 1) / kPanel * channels * kPanel;
  shared(rows, block, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t c = 0; c < width; ++c)
        out[row * width + c] = plus ? bias[c] + plus[row * width + c] : bias[c];
    const int64_t *at = starts + begin / block * (offsets + 1);
    for (int64_t k = 0; k < offsets; ++k) {
      const float *w = weight + k * per_offset;
      for (int64_t i = 0, first = 0; i < 2; first += in[i++].channels)
        if (in[i].channels)
          multiply(in[i], pairs + at[k], at[k + 1] - at[k], w + first * kPanel, channels, out,
                   width);
    }
    if (relu)
      for (int64_t i = begin * width; i < end * width; ++i) out[i] = out[i] > 0 ? out[i] : 0;
  });
}

// rows (n, width) become unit rows in place; phrases (p, width) of `classes` classes that end at
// `ends`; class_id (n) counts from 1, score (n) is its softmax.
void classify(float *rows, int64_t n, int64_t width, const float *phrases, const int64_t *ends,
              int64_t classes, float temperature, uint8_t *class_id, float *score) {
  const Product multiply = widest();
  const int64_t count = ends[classes - 1];
  std::vector<Pair> own(count);
  for (int64_t p = 0; p < count; ++p) own[p] = {int32_t(p), int32_t(p)};
  shared(n, 256, [&](int64_t begin, int64_t end) {
    // kPanel rows side by side, so that maxima and sums go over rows in vectors.
    std::vector<float> columns(width * kPanel), cosines(count * kPanel);
    for (int64_t first = begin; first < end; first += kPanel) {
      const int64_t some = std::min(kPanel, end - first);
      for (int64_t i = 0; i < some; ++i) {
        float *row = rows + (first + i) * width;
        make_unit(row, width);
        for (int64_t c = 0; c < width; ++c) columns[c * kPanel + i] = row[c];
      }
      std::fill(cosines.begin(), cosines.end(), 0.0f);
      multiply({phrases, width, width}, own.data(), count, columns.data(), width, cosines.data(),
               kPanel);
      int32_t best[kPanel];
      float sure[kPanel];
      choose(cosines.data(), ends, classes, 1 / temperature, best, sure);
      for (int64_t i = 0; i < some; ++i)
        class_id[first + i] = uint8_t(best[i]), score[first + i] = sure[i];
    }
  });
}

// Freed memory stays in the process: every sweep needs as much again, and the system would give
// it page by page, zeroed, at a cost like the network's own.
void keep_memory() {
#if defined(__GLIBC__)
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 512 << 20);
  mallopt(M_ARENA_MAX, 1);  // what one thread frees another one takes
#endif
}
}
