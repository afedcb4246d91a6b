# Builds both programs from the tagged source: brew tap gguf-video/gguf-video URL-OF-THIS-REPOSITORY, then
# brew install gguf-video.
class GgufVideo < Formula
  desc "Makes videos with open models from GGUF files, and converts models to them"
  homepage "https://github.com/gguf-video/gguf-video"
  url "https://github.com/gguf-video/gguf-video.git", tag: "v0.1.0"
  license "MIT"
  head "https://github.com/gguf-video/gguf-video.git", branch: "main"

  depends_on "cmake" => :build
  depends_on "rust" => :build

  uses_from_macos "llvm" => :build

  on_macos do
    depends_on macos: :ventura
  end

  def install
    # ggml is built once a version: in the folder of the build, not in a home that isn't there.
    ENV["GGML_CACHE_DIR"] = buildpath/"ggml"
    system "cargo", "install", *std_cargo_args(path: "converter")
    system "cargo", "install", *std_cargo_args(path: "runtime")
    %w[to-gguf gguf-video].each { |program| system bin/program, "pages", prefix }
  end

  test do
    assert_match "Wan2.2 T2V A14B", shell_output("#{bin}/gguf-video models")
    assert_match "no such file", shell_output("#{bin}/to-gguf inspect nothing.gguf 2>&1", 2).downcase
  end
end
