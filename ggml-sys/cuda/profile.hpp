// Where the GPU's time goes.
#pragma once

#include "ggml-cuda/common.cuh"

#include <map>
#include <string>
#include <vector>

namespace video {

// Seconds by kind of work, printed at the end where GGUF_VIDEO_CUDA_PROFILE=1 asks for them.
class Profile {
  public:
    const bool on = getenv("GGUF_VIDEO_CUDA_PROFILE") != nullptr;

    ~Profile() {
        double sum = 0;
        for (const auto & [name, ms] : total) {
            sum += ms;
        }
        for (const auto & [name, ms] : total) {
            fprintf(stderr, "profile: %-20s %9.1f ms %5.1f %%\n", name.c_str(), ms, 100 * ms / sum);
        }
    }

    template <class F> void measure(const char * name, cudaStream_t stream, F && work) {
        if (!on) {
            work();
            return;
        }
        Pending p = { name };
        CUDA_CHECK(cudaEventCreate(&p.begin));
        CUDA_CHECK(cudaEventCreate(&p.end));
        CUDA_CHECK(cudaEventRecord(p.begin, stream));
        work();
        CUDA_CHECK(cudaEventRecord(p.end, stream));
        pending.push_back(p);
    }

    void collect() {
        for (const Pending & p : pending) {
            float ms = 0;
            CUDA_CHECK(cudaEventSynchronize(p.end));
            CUDA_CHECK(cudaEventElapsedTime(&ms, p.begin, p.end));
            CUDA_CHECK(cudaEventDestroy(p.begin));
            CUDA_CHECK(cudaEventDestroy(p.end));
            total[p.name] += ms;
        }
        pending.clear();
    }

  private:
    struct Pending {
        const char * name;
        cudaEvent_t  begin, end;
    };

    std::vector<Pending>          pending;
    std::map<std::string, double> total;
};

} // namespace video
