// What training the sparse network needs beside its layers (network.cpp): weights laid out in
// panels, and their gradient.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=fast")  // nothing here must equal NumPy to the bit
#endif
#include <vector>

#include "shared.h"
#include "vectors.h"

namespace {

constexpr int64_t kChunk = 128;  // pairs that lie in the cache, side by side
constexpr int64_t kFetched = 6;  // pairs ahead
constexpr int64_t kLine = 16;    // floats of a cache line
constexpr int64_t kGroup = 48;   // columns of the output's gradient that one part takes

// sums (kTile, kPanel) += the outer products of `count` rows left (count, kTile) and right (count,
// kPanel).
template <typename Lanes>
INLINE void add_outer(const float *left, const float *right, int64_t count, float *sums) {
  using V = typename Lanes::V;
  constexpr int kFloats = sizeof(V) / sizeof(float), kRows = kTile<Lanes>, kWide = kPanel / kFloats;
  V sum[kRows][kWide];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kWide; ++v) sum[r][v] = *(const V *)(sums + r * kPanel + v * kFloats);
  for (int64_t i = 0; i < count; ++i, left += kRows, right += kPanel)
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < kWide; ++v) sum[r][v] += left[r] * *(const V *)(right + v * kFloats);
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kWide; ++v) *(V *)(sums + r * kPanel + v * kFloats) = sum[r][v];
}

// Columns of a row, side by side in slices that lie kChunk rows apart; zeros beyond.
template <int64_t slice>
INLINE void lay(const float *row, int64_t columns, int64_t place, float *out) {
  out += place * slice;
  for (; columns >= slice; columns -= slice, row += slice, out += kChunk * slice)
    for (int64_t j = 0; j < slice; ++j) out[j] = row[j];
  if (columns)
    for (int64_t j = 0; j < slice; ++j) out[j] = j < columns ? row[j] : 0;
}

// All that the pairs of one offset give: what the layer took (rows of cin) and the gradient of
// what it gave, columns [first, last) of rows of cout.
struct Gradient {
  const float *x, *out;
  int64_t cin, cout, first, last;
  std::vector<float> right, left, sums;
  int64_t met = 0;

  template <typename Lanes>
  INLINE void prepare() {
    const int64_t panels = (cin + kPanel - 1) / kPanel;
    const int64_t tiles = (last - first + kTile<Lanes> - 1) / kTile<Lanes>;
    right.resize(panels * kChunk * kPanel), left.resize(tiles * kChunk * kTile<Lanes>);
    sums.assign(panels * tiles * kPanel * kTile<Lanes>, 0);
  }

  template <typename Lanes>
  INLINE void add(const Pair &pair) {
    lay<kPanel>(x + pair.from * cin, cin, met, right.data());
    lay<kTile<Lanes>>(out + pair.to * cout + first, last - first, met, left.data());
    if (++met == kChunk) flush<Lanes>();
  }

  // Rows lie where neighbours do, not side by side, so memory is told before they are needed.
  INLINE void fetch(const Pair &pair) const {
    for (int64_t c = 0; c < cin; c += kLine) __builtin_prefetch(x + pair.from * cin + c);
    for (int64_t c = first; c < last; c += kLine) __builtin_prefetch(out + pair.to * cout + c);
  }

  template <typename Lanes>
  INLINE void flush() {
    constexpr int64_t kRows = kTile<Lanes>;
    float *sum = sums.data();
    for (size_t t = 0; t < left.size(); t += kChunk * kRows)
      for (size_t p = 0; p < right.size(); p += kChunk * kPanel, sum += kRows * kPanel)
        add_outer<Lanes>(left.data() + t, right.data() + p, met, sum);
    met = 0;
  }

  // To weight (cout, offsets, cin), at one offset.
  template <typename Lanes>
  INLINE void write(float *weight, int64_t offsets) const {
    const float *sum = sums.data();
    for (int64_t t = first; t < last; t += kTile<Lanes>)
      for (int64_t p = 0; p < cin; p += kPanel, sum += kTile<Lanes> * kPanel)
        for (int64_t r = t; r < std::min(last, t + kTile<Lanes>); ++r)
          for (int64_t c = p; c < std::min(cin, p + kPanel); ++c)
            weight[r * offsets * cin + c] = sum[(r - t) * kPanel + c - p];
  }
};

template <typename Lanes>
INLINE void gradient(Gradient &sums, const Pair *pairs, const int64_t *starts, int64_t offsets,
                     int64_t blocks, int64_t k, float *weight) {
  sums.prepare<Lanes>();
  for (int64_t block = 0; block < blocks; ++block, starts += offsets + 1)
    for (int64_t i = starts[k]; i < starts[k + 1]; ++i) {
      sums.fetch(pairs[std::min(i + kFetched, starts[k + 1] - 1)]);
      sums.add<Lanes>(pairs[i]);
    }
  sums.flush<Lanes>();
  sums.write<Lanes>(weight + k * sums.cin, offsets);
}

using Form = void (*)(Gradient &, const Pair *, const int64_t *, int64_t, int64_t, int64_t,
                      float *);

void gradient_anywhere(Gradient &sums, const Pair *pairs, const int64_t *starts, int64_t offsets,
                       int64_t blocks, int64_t k, float *weight) {
  gradient<Four>(sums, pairs, starts, offsets, blocks, k, weight);
}

#ifdef X86
__attribute__((target("avx2,fma"))) void gradient_avx2(Gradient &sums, const Pair *pairs,
                                                       const int64_t *starts, int64_t offsets,
                                                       int64_t blocks, int64_t k, float *weight) {
  gradient<Eight>(sums, pairs, starts, offsets, blocks, k, weight);
}
#else
constexpr Form gradient_avx2 = gradient_anywhere;
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
      for (int64_t c = 0; c < cin; ++c)
        for (int64_t j = 0; j < kPanel; ++j)
          *to++ = column + j < cout ? from[c * in_step + j * out_step] : 0;
    }
  });
}

// weight (cout, offsets, cin) = the sum over pairs of gradient (rows, cout) at `to` times x (.,
// cin) at `from`. An offset's pairs are added up by one thread in their order, so that the same
// data give the same bits on any number of cores.
void weight_gradient(const float *x, int64_t cin, const float *gradient, int64_t cout,
                     const Pair *pairs, const int64_t *starts, int64_t offsets, int64_t blocks,
                     float *weight) {
  static const Form add_up = has_avx2() ? gradient_avx2 : gradient_anywhere;
  const int64_t groups = (cout + kGroup - 1) / kGroup;
  shared(offsets * groups, 1, [&](int64_t part, int64_t) {
    const int64_t first = part % groups * kGroup;
    Gradient sums{x, gradient, cin, cout, first, std::min(cout, first + kGroup), {}, {}, {}};
    add_up(sums, pairs, starts, offsets, blocks, part / groups, weight);
  });
}
}
