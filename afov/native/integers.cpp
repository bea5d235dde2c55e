// The whole sparse network in 16- or 8-bit integers, in one call. Activations have a scale per row
// and weights one per column; sums of an offset are exact and leave for float32 after it.
//
// Blocks of rows go in order, layer after layer, and none waits for a layer's end: only for the
// blocks that it reads. One that a thread was taken away from is done again by whoever needs it.
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <vector>

#include "shared.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include "integers.h"

// Or the sums of a tile would go through memory.
#define UNROLL _Pragma("GCC unroll 8")

namespace {

constexpr int64_t kLanes = 8, kPanel = 16, kSources = 3;
// Longer than a block takes, much shorter than the system takes a core away for.
constexpr auto kPatience = std::chrono::microseconds(400);

struct Pair {
  int32_t to, from;
};

// What a layer reads: rows of integers through the pairs and weights of its offsets. All words are
// of 64 bits, as afov/runtimes/integer_runtime.py lays them out.
struct Source {
  const char *rows;
  const float *scale;
  int64_t row_bytes, steps;  // steps of N::kChannels; 0: no source
  const Pair *pairs;         // as pairs_of gives them
  const int64_t *starts;
  const int32_t *reach;
  int64_t offsets;
  const char *weight;  // (panels, offsets, steps, N::kWords, 16, a word's channels)
  const float *rescale;  // per column, or null: brings the sums so far to these weights' scale
  int64_t layer, bits;   // the layer that gives the rows; -1: they are there
};

struct Layer {
  Source source[kSources];
  const float *weight_scale, *bias;  // per column; `width` of them
  const char *plus;                  // rows to add as they are, in the output's integers, or null
  const float *plus_scale;
  char *out;  // integers after ReLU; with 32 bits (rows, channels) float32 as it is
  float *scale;
  int64_t rows, width, channels, block, bits;
};

// sums[pair.to] += scale in[pair.from] W for `count` pairs and wide * 8 columns.
template <typename N, int count, int wide>
AVX2 inline void tile(const Source &in, const Pair *pairs, const char *weight, float *sums) {
  const char *from[count];
  __m256i sum[count][wide];
  UNROLL for (int r = 0; r < count; ++r) {
    from[r] = in.rows + pairs[r].from * in.row_bytes;
    UNROLL for (int v = 0; v < wide; ++v) sum[r][v] = _mm256_setzero_si256();
  }
  for (int64_t at = 0, end = in.steps * N::kWords * 4; at < end; at += N::kWords * 4) {
    __m256i w[wide][N::kWords];
    UNROLL for (int word = 0; word < N::kWords; ++word, weight += 4 * kPanel)
      UNROLL for (int v = 0; v < wide; ++v)
        w[v][word] = _mm256_loadu_si256((const __m256i *)weight + v);
    UNROLL for (int r = 0; r < count; ++r) {
      __m256i channels[N::kWords];
      UNROLL for (int word = 0; word < N::kWords; ++word)
        channels[word] = _mm256_castps_si256(
            _mm256_broadcast_ss((const float *)(from[r] + at + 4 * word)));
      UNROLL for (int v = 0; v < wide; ++v) N::add(sum[r][v], channels, w[v]);
    }
  }
  UNROLL for (int r = 0; r < count; ++r) {
    const __m256 scale = _mm256_broadcast_ss(in.scale + pairs[r].from);
    float *to = sums + pairs[r].to * kPanel;
    UNROLL for (int v = 0; v < wide; ++v, to += kLanes)
      _mm256_storeu_ps(
          to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r][v]), scale, _mm256_loadu_ps(to)));
  }
}

template <typename N, int wide>
AVX2 inline void offset(const Source &in, const Pair *pairs, int64_t count, const char *weight,
                        float *sums) {
  for (; count >= N::kTile; count -= N::kTile, pairs += N::kTile)
    tile<N, N::kTile, wide>(in, pairs, weight, sums);
  switch (count) {
    case 5: return tile<N, 5, wide>(in, pairs, weight, sums);
    case 4: return tile<N, 4, wide>(in, pairs, weight, sums);
    case 3: return tile<N, 3, wide>(in, pairs, weight, sums);
    case 2: return tile<N, 2, wide>(in, pairs, weight, sums);
    case 1: return tile<N, 1, wide>(in, pairs, weight, sums);
  }
}

// All offsets of a source for one block and one panel of columns.
template <typename N>
AVX2 void products(const Source &in, int64_t block, int64_t panel, bool half, float *sums) {
  const int64_t *at = in.starts + block * (in.offsets + 1);
  const int64_t bytes = in.steps * N::kWords * 4 * kPanel;
  const char *weight = in.weight + panel * in.offsets * bytes;
  for (int64_t k = 0; k < in.offsets; ++k, weight += bytes)
    if (half)
      offset<N, 1>(in, in.pairs + at[k], at[k + 1] - at[k], weight, sums);
    else
      offset<N, 2>(in, in.pairs + at[k], at[k + 1] - at[k], weight, sums);
}

// `width` floats as whole numbers up to N::kLargest; returns their scale.
template <typename N>
AVX2 inline float quantize(const float *row, int64_t width, char *out) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 most = _mm256_setzero_ps();
  for (int64_t c = 0; c < width; c += kLanes)
    most = _mm256_max_ps(most, _mm256_andnot_ps(sign, _mm256_loadu_ps(row + c)));
  float lanes[kLanes], largest = 1e-30f;
  _mm256_storeu_ps(lanes, most);
  for (float lane : lanes) largest = std::max(largest, lane);
  const __m256 steps = _mm256_set1_ps(N::kLargest / largest);
  for (int64_t c = 0; c < width; c += kLanes)
    N::store(_mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(row + c), steps)), out, c);
  return largest / N::kLargest;
}

// One row of sums, in panels that lie `step` floats apart, to what the layer gives.
template <typename N>
AVX2 void finish(const Layer &layer, const float *sums, int64_t step, int64_t at, float *row) {
  const char *plus = layer.plus ? layer.plus + at * layer.width * layer.bits / 8 : nullptr;
  for (int64_t c = 0; c < layer.width; c += kLanes) {
    __m256 value = _mm256_fmadd_ps(_mm256_loadu_ps(sums + c / kPanel * step + c % kPanel),
                                   _mm256_loadu_ps(layer.weight_scale + c),
                                   _mm256_loadu_ps(layer.bias + c));
    if (plus)
      value = _mm256_fmadd_ps(_mm256_cvtepi32_ps(N::load(plus, c)),
                              _mm256_set1_ps(layer.plus_scale[at]), value);
    if (layer.bits < 32) value = _mm256_max_ps(value, _mm256_setzero_ps());
    _mm256_storeu_ps(row + c, value);
  }
  if (layer.bits < 32)
    layer.scale[at] = quantize<N>(row, layer.width, layer.out + at * layer.width * layer.bits / 8);
  else
    std::copy_n(row, layer.channels, (float *)layer.out + at * layer.channels);
}

// Rows of one block, all sums of a panel before the next one: these stay in the first cache.
void work(const Layer &layer, int64_t block) {
  thread_local std::vector<float> memory;
  const int64_t begin = block * layer.block, end = std::min(layer.rows, begin + layer.block);
  const int64_t panels = (layer.width + kPanel - 1) / kPanel, step = layer.block * kPanel;
  memory.assign(panels * step + layer.width, 0);
  for (int64_t panel = 0; panel < panels; ++panel) {
    float *sums = memory.data() + panel * step - begin * kPanel;
    const bool half = layer.width - panel * kPanel <= kLanes;
    for (const Source &in : layer.source) {
      if (!in.steps) continue;
      if (in.rescale)
        for (int64_t i = begin * kPanel; i < end * kPanel; ++i)
          sums[i] *= in.rescale[panel * kPanel + i % kPanel];
      (in.bits == 8 ? products<Eight> : products<Sixteen>)(in, block, panel, half, sums);
    }
  }
  for (int64_t row = begin; row < end; ++row)
    (layer.bits == 8 ? finish<Eight> : finish<Sixteen>)(
        layer, memory.data() + (row - begin) * kPanel, step, row, memory.data() + panels * step);
}

// A network's blocks, numbered layer after layer.
class Network {
 public:
  Network(const Layer *layers, int64_t count) : layers_(layers), first_(count + 1) {
    for (int64_t i = 0; i < count; ++i)
      first_[i + 1] = first_[i] + (layers[i].rows + layers[i].block - 1) / layers[i].block;
    done_ = std::vector<std::atomic<bool>>(first_[count]);
  }

  int64_t blocks() const { return first_.back(); }

  void run(int64_t number) {
    const int64_t i = std::upper_bound(first_.begin(), first_.end(), number) - first_.begin() - 1;
    const int64_t block = number - first_[i];
    for (const Source &in : layers_[i].source) {
      if (!in.steps || in.layer < 0) continue;
      const int64_t rows = layers_[in.layer].block;
      const int32_t *reach = in.reach + 2 * block;
      for (int64_t b = reach[0] / rows; b <= reach[1] / rows && reach[0] <= reach[1]; ++b)
        wait(first_[in.layer] + b);
    }
    work(layers_[i], block);
    done_[number].store(true, std::memory_order_release);
  }

 private:
  // Whoever has it may have been taken away in its midst: both write the same.
  void wait(int64_t number) {
    if (!spin(kPatience, [&] { return done_[number].load(std::memory_order_acquire); }))
      run(number);
  }

  const Layer *layers_;
  std::vector<int64_t> first_;
  std::vector<std::atomic<bool>> done_;
};

}  // namespace

extern "C" {

int64_t has_integers() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

// rows (n, width), width a multiple of 8, to 16-bit out (n, width) and scale (n).
void quantize_rows(const float *rows, int64_t n, int64_t width, char *out, float *scale) {
  for (int64_t i = 0; i < n; ++i)
    scale[i] = quantize<Sixteen>(rows + i * width, width, out + 2 * i * width);
}

// Layers in an order in which each one reads only from those before it.
void integer_network(const Layer *layers, int64_t count) {
  Network network(layers, count);
  run_parts(network.blocks(), [&](int64_t number) { network.run(number); });
}
}
#else
extern "C" int64_t has_integers() { return 0; }
#endif
