// The system's header, and what ggml needs of VK_EXT_layer_settings where the header is older than that
// extension (1.3.272): three types that describe an option of the validation layer.
#include_next <vulkan/vulkan.hpp>

#if VK_HEADER_VERSION < 272 && !defined(LAYER_SETTINGS_FILLED_IN)
#define LAYER_SETTINGS_FILLED_IN
#include <vector>

namespace vk {

enum class LayerSettingTypeEXT { eBool32 = 0 };

struct LayerSettingEXT {
    const char *        layer;
    const char *        setting;
    LayerSettingTypeEXT type;
    uint32_t            count;
    const void *        values;
};

struct LayerSettingsCreateInfoEXT {
    uint32_t                type = 1000496000;
    const void *            next = nullptr;
    uint32_t                count;
    const LayerSettingEXT * settings;

    LayerSettingsCreateInfoEXT(const std::vector<LayerSettingEXT> & all)
        : count(static_cast<uint32_t>(all.size())), settings(all.data()) {}
};

} // namespace vk
#endif
