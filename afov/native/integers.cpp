// The whole sparse network in 16- or 8-bit integers, in one call. Activations have a scale per row
// and weights one per column; sums of an offset are exact and leave for float32 after it.
//
// Blocks of rows go in order, layer after layer, and none waits for a layer's end: only for the
// blocks that it reads. One that a thread was taken away from is done again by whoever needs it.
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "integers.h"
#include "shared.h"

#if defined(__x86_64__) && defined(__GNUC__)

namespace {

// Longer than a block takes, much shorter than the system takes a core away for.
constexpr auto kPatience = std::chrono::microseconds(400);

// A panel's columns as one vector: from a loop over them compilers make shuffles.
typedef float Columns __attribute__((vector_size(4 * kPanel), aligned(4), may_alias));

void rescale(float *sums, int64_t rows, const float *ratio) {
  const Columns ratios = *(const Columns *)ratio;
  for (int64_t row = 0; row < rows; ++row) *(Columns *)(sums + row * kPanel) *= ratios;
}

// Rows of one block, all sums of a few panels before the next ones: these stay in the first cache.
void work(const Layer &layer, const Form &form, int64_t block) {
  thread_local std::vector<float> memory;
  const int64_t begin = block * layer.block, end = std::min(layer.rows, begin + layer.block);
  const int64_t panels = (layer.width + kPanel - 1) / kPanel, step = layer.block * kPanel;
  const int64_t groups = (panels + form.panels - 1) / form.panels;
  memory.resize(std::max<size_t>(memory.size(), panels * (step + kPanel)));
  std::memset(memory.data(), 0, panels * step * sizeof(float));  // assign is half as fast
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t first = group * panels / groups, next = (group + 1) * panels / groups;
    const int64_t columns = std::min(layer.width, next * kPanel) - first * kPanel;
    float *sums = memory.data() + first * step - begin * kPanel;
    for (const Source &in : layer.source) {
      if (!in.steps) continue;
      if (in.rescale)
        for (int64_t panel = first; panel < next; ++panel)
          rescale(sums + (panel - first) * step + begin * kPanel, end - begin,
                  in.rescale + panel * kPanel);
      form.products(in, block, first, columns, sums, step);
    }
  }
  form.finish(layer, begin, end, memory.data(), step, memory.data() + panels * step);
}

// A network's blocks, numbered layer after layer.
class Network {
 public:
  Network(const Layer *layers, int64_t count, const Form &form)
      : layers_(layers), form_(form), first_(count + 1) {
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
    work(layers_[i], form_, block);
    done_[number].store(true, std::memory_order_release);
  }

 private:
  // Whoever has it may have been taken away in its midst: both write the same.
  void wait(int64_t number) {
    if (!spin(kPatience, [&] { return done_[number].load(std::memory_order_acquire); }))
      run(number);
  }

  const Layer *layers_;
  const Form &form_;
  std::vector<int64_t> first_;
  std::vector<std::atomic<bool>> done_;
};

}  // namespace

extern "C" {

int64_t has_integers() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

int64_t has_vnni() {
  return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

// rows (n, width), width a multiple of 8, to 16-bit out (n, width) and scale (n).
void quantize_rows(const float *rows, int64_t n, int64_t width, char *out, float *scale) {
  for (int64_t i = 0; i < n; ++i)
    scale[i] = quantize_row(rows + i * width, width, out + 2 * i * width);
}

// Layers in an order in which each one reads only from those before it.
void integer_network(const Layer *layers, int64_t count, int64_t vnni) {
  Network network(layers, count, vnni ? kVnni : kAvx2);
  run_parts(network.blocks(), [&](int64_t number) { network.run(number); });
}
}
#else
extern "C" int64_t has_integers() { return 0; }
#endif
