// What the integer network's forms share: its layers, and what each form does with a block of rows.
#pragma once

#include <cstdint>

constexpr int64_t kPanel = 16, kSources = 3;  // columns that weights lie side by side in

// Or the sums of a tile would go through memory.
#define UNROLL _Pragma("GCC unroll 8")

struct Pair {
  int32_t to, from;
};

// What a layer reads: rows of integers through the pairs and weights of its offsets. All words are
// of 64 bits, as afov/runtimes/integer_runtime.py lays them out.
struct Source {
  const char *rows;
  const float *scale;
  int64_t row_bytes, steps;  // steps of 8 channels, or of 2 in 16 bits; 0: no source
  const Pair *pairs;         // as pairs_of gives them
  const int64_t *starts;
  const int32_t *reach;
  int64_t offsets;
  const char *weight;  // (panels, offsets, steps, words, 16, a word's channels)
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

// How a block of rows is multiplied on one kind of processor. All forms give the same bits: integers
// add up exactly, and floats go through the same operations in the same order.
//
// Sums lie in panels `step` floats apart, a row's kPanel side by side in each.
struct Form {
  int64_t panels;  // as many at once, at most
  // All offsets of a source for one block and `columns` columns, from a panel's first one on; sums:
  // where that panel's row 0 would lie.
  void (*products)(const Source &in, int64_t block, int64_t panel, int64_t columns, float *sums,
                   int64_t step);
  // Rows' sums to what the layer gives; `row`: room for the floats of one, in whole panels.
  void (*finish)(const Layer &layer, int64_t begin, int64_t end, const float *sums, int64_t step,
                 float *row);
};

extern const Form kAvx2, kVnni;

// `width` floats as 16-bit integers, and their scale.
float quantize_row(const float *row, int64_t width, char *out);
