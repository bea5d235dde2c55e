// What training the sparse network needs beside its layers (network.cpp): weights laid out in
// panels, and their gradient.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=fast")  // nothing here must equal NumPy to the bit
#endif

#include "shared.h"
#include "vectors.h"

namespace {

// Rows and eights of columns of a tile: its sums fill the registers.
template <typename Lanes>
constexpr int kRows = 4;
template <>
constexpr int kRows<Sixteen> = 8;
template <typename Lanes>
constexpr int64_t kEights = 3 * sizeof(typename Lanes::V) / sizeof(Eight::V);

constexpr int64_t kChunk = 48;    // pairs whose rows stay in the first cache
constexpr int64_t kBlocks = 4;    // blocks whose rows stay in the second one
constexpr int64_t kParts = 3;     // of the offsets, as planes of a kernel: they move the same rows
constexpr int64_t kColumns = 48;  // of the output's gradient, that one part takes

// Rows of pairs of one offset: what the layer took (right, cin wide), and the gradient of what it
// gave (left).
struct Chunk {
  const float *left[kChunk], *right[kChunk];
  int64_t met = 0;
};

// sums (kRows, eights * 8) += the outer products of columns of the chunk's rows.
template <typename Lanes, int eights>
INLINE void add_outer(const Chunk &rows, int64_t row, int64_t column, float *sums, int64_t step) {
  using V = typename Lanes::V;
  using Half = Eight::V;
  constexpr int kFloats = sizeof(V) / sizeof(float), wide = eights * kLanes / kFloats;
  constexpr bool half = eights * kLanes > wide * kFloats;  // what does not fill a vector
  constexpr int height = kRows<Lanes>;
  V sum[height][wide + half];
  Half last[height];
  for (int r = 0; r < height; ++r) {
    const float *from = sums + r * step;
    for (int v = 0; v < wide; ++v) sum[r][v] = *(const V *)(from + v * kFloats);
    if (half) last[r] = *(const Half *)(from + wide * kFloats);
  }
  for (int64_t i = 0; i < rows.met; ++i) {
    const float *left = rows.left[i] + row, *right = rows.right[i] + column;
    for (int r = 0; r < height; ++r) {
      const V x = left[r] + V{};
      for (int v = 0; v < wide; ++v) sum[r][v] += x * *(const V *)(right + v * kFloats);
      if (half) last[r] += *(const Half *)&x * *(const Half *)(right + wide * kFloats);
    }
  }
  for (int r = 0; r < height; ++r) {
    float *to = sums + r * step;
    for (int v = 0; v < wide; ++v) *(V *)(to + v * kFloats) = sum[r][v];
    if (half) *(Half *)(to + wide * kFloats) = last[r];
  }
}

// weight (cout, step), cin columns of it, += the outer products of the rows, which then are done.
template <typename Lanes>
INLINE void add_chunk(Chunk &rows, int64_t cout, int64_t cin, float *weight, int64_t step) {
  const int64_t all = cin / kLanes, groups = (all + kEights<Lanes> - 1) / kEights<Lanes>;
  for (int64_t r = 0; r < cout; r += kRows<Lanes>, weight += kRows<Lanes> * step)
    for (int64_t group = 0, c = 0, last; group < groups; ++group, c = last) {
      last = (group + 1) * all / groups * kLanes;
      float *sums = weight + c;
      const int64_t eights = (last - c) / kLanes;
      if constexpr (kEights<Lanes> == 6) switch (eights) {
        case 6: add_outer<Lanes, 6>(rows, r, c, sums, step); break;
        case 5: add_outer<Lanes, 5>(rows, r, c, sums, step); break;
        case 4: add_outer<Lanes, 4>(rows, r, c, sums, step); break;
      }
      if (eights == 3) add_outer<Lanes, 3>(rows, r, c, sums, step);
      if (eights == 2) add_outer<Lanes, 2>(rows, r, c, sums, step);
      if (eights == 1) add_outer<Lanes, 1>(rows, r, c, sums, step);
    }
  rows.met = 0;
}

// What the layer took, the gradient of what it gave, and its pairs.
struct Layer {
  const float *x, *out;
  int64_t cin, cout;
  const Pair *pairs;
  const int64_t *starts;
  int64_t offsets, blocks;
};

// weight (cout, offsets, cin) at the columns [first, last) of cout and the offsets [begin, end).
template <typename Lanes>
INLINE void gradient(const Layer &of, int64_t first, int64_t last, int64_t begin, int64_t end,
                     float *weight) {
  const int64_t step = of.offsets * of.cin;
  weight += first * step;
  for (int64_t r = 0; r < last - first; ++r)
    std::fill(weight + r * step + begin * of.cin, weight + r * step + end * of.cin, 0.0f);
  for (int64_t some = 0; some < of.blocks; some += kBlocks)
    for (int64_t k = begin; k < end; ++k) {
      Chunk rows;
      for (int64_t block = some; block < std::min(of.blocks, some + kBlocks); ++block) {
        const int64_t *at = of.starts + block * (of.offsets + 1) + k;
        for (int64_t i = at[0]; i < at[1]; ++i) {
          rows.left[rows.met] = of.out + of.pairs[i].to * of.cout + first;
          rows.right[rows.met] = of.x + of.pairs[i].from * of.cin;
          if (++rows.met == kChunk)
            add_chunk<Lanes>(rows, last - first, of.cin, weight + k * of.cin, step);
        }
      }
      add_chunk<Lanes>(rows, last - first, of.cin, weight + k * of.cin, step);
    }
}

using Form = decltype(&gradient<Four>);

void gradient_anywhere(const Layer &of, int64_t first, int64_t last, int64_t begin, int64_t end,
                       float *weight) {
  gradient<Four>(of, first, last, begin, end, weight);
}

#ifdef X86
__attribute__((target("avx2,fma"))) void gradient_avx2(const Layer &of, int64_t first,
                                                       int64_t last, int64_t begin, int64_t end,
                                                       float *weight) {
  gradient<Eight>(of, first, last, begin, end, weight);
}

__attribute__((target("avx512vl,fma"))) void gradient_avx512(const Layer &of, int64_t first,
                                                             int64_t last, int64_t begin,
                                                             int64_t end, float *weight) {
  gradient<Sixteen>(of, first, last, begin, end, weight);
}
#else
constexpr Form gradient_avx2 = gradient_anywhere, gradient_avx512 = gradient_anywhere;
#endif

}  // namespace

extern "C" {

// weight (offsets, cin, cout), its axes so many floats apart, to out (offsets, panels, cin, 16).
void weight_panels(const float *weight, int64_t offset_step, int64_t in_step, int64_t out_step,
                   int64_t offsets, int64_t cin, int64_t cout, float *out) {
  const int64_t panels = (cout + kPanel - 1) / kPanel;
  shared(offsets * panels, panels, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t column = part % panels * kPanel;
      const float *from = weight + part / panels * offset_step + column * out_step;
      float *to = out + part * cin * kPanel;
      const int64_t some = std::min(kPanel, cout - column);
      if (some < kPanel) std::fill_n(to, cin * kPanel, 0.0f);
      if (out_step == 1)
        for (int64_t c = 0; c < cin; ++c) std::copy_n(from + c * in_step, some, to + c * kPanel);
      else
        for (int64_t j = 0; j < some; ++j)
          for (int64_t c = 0; c < cin; ++c) to[c * kPanel + j] = from[c * in_step + j * out_step];
    }
  });
}

// weight (cout, offsets, cin) = the sum over pairs of gradient (rows, cout) at `to` times x (.,
// cin) at `from`. An offset's pairs are added up by one thread in their order, so that the same
// data give the same bits on any number of cores.
void weight_gradient(const float *x, int64_t cin, const float *gradient, int64_t cout,
                     const Pair *pairs, const int64_t *starts, int64_t offsets, int64_t blocks,
                     float *weight) {
  const Form add_up = lanes() == 16  ? gradient_avx512
                      : lanes() == 8 ? gradient_avx2
                                     : gradient_anywhere;
  const Layer of{x, gradient, cin, cout, pairs, starts, offsets, blocks};
  const int64_t groups = (cout + kColumns - 1) / kColumns;
  shared(kParts * groups, 1, [&](int64_t part, int64_t) {
    const int64_t first = part % groups * kColumns, plane = part / groups;
    add_up(of, first, std::min(cout, first + kColumns), plane * offsets / kParts,
           (plane + 1) * offsets / kParts, weight);
  });
}
}
