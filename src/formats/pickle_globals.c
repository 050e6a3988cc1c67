/* pickle_globals.c - every global that a checkpoint may name, and what it stands for.
 *
 * The list is the security boundary of pickle.c: none of these is ever resolved, and what is not
 * listed refuses the file.  The opaque ones are plain records that training programs leave beside
 * the tensors. */
#include <string.h>

#include "formats/pickle.h"

#define OPAQUE(name)                            \
    {                                           \
        name, CV_GLOBAL_OPAQUE, CV_DTYPES, NULL \
    }
#define STORAGE(name, dtype)                                    \
    {                                                           \
        "torch." name "Storage", CV_GLOBAL_STORAGE, dtype, NULL \
    }
#define REFUSED(name, why)                      \
    {                                           \
        name, CV_GLOBAL_REFUSED, CV_DTYPES, why \
    }

#define COMPLEX   "complex tensors are not read; no RWKV model has any"
#define QUANTIZED "tensors quantized by PyTorch are not read; save the model in f16, bf16 or f32"
#define SPARSE    "sparse tensors are not read; save them dense"
#define UNTYPED   "this element type is not read; save the model in f16, bf16 or f32"
#define MODULE    "a whole module was saved; save its state_dict() instead"

static const cv_pickle_global globals[] = {
    { "collections.OrderedDict", CV_GLOBAL_ORDERED_DICT, CV_DTYPES, NULL },
    { "torch._utils._rebuild_tensor_v2", CV_GLOBAL_TENSOR, CV_DTYPES, NULL },
    { "torch._utils._rebuild_tensor", CV_GLOBAL_TENSOR, CV_DTYPES, NULL },
    { "torch._utils._rebuild_parameter", CV_GLOBAL_PARAMETER, CV_DTYPES, NULL },
    { "torch._utils._rebuild_parameter_with_state", CV_GLOBAL_PARAMETER, CV_DTYPES, NULL },

    STORAGE("Float", CV_F32),
    STORAGE("Half", CV_F16),
    STORAGE("BFloat16", CV_BF16),
    STORAGE("Double", CV_F64),
    STORAGE("Char", CV_I8),
    STORAGE("Short", CV_I16),
    STORAGE("Int", CV_I32),
    STORAGE("Long", CV_I64),
    STORAGE("Byte", CV_U8),
    STORAGE("Bool", CV_BOOL),

    OPAQUE("numpy.core.multiarray.scalar"),
    OPAQUE("numpy.core.multiarray._reconstruct"),
    OPAQUE("numpy._core.multiarray.scalar"),
    OPAQUE("numpy._core.multiarray._reconstruct"),
    OPAQUE("numpy.dtype"),
    OPAQUE("numpy.ndarray"),
    OPAQUE("_codecs.encode"),
    OPAQUE("yacs.config.CfgNode"),
    OPAQUE("mmcv.utils.config.ConfigDict"),
    OPAQUE("mmengine.config.config.ConfigDict"),
    OPAQUE("mmengine.logging.history_buffer.HistoryBuffer"),
    OPAQUE("argparse.Namespace"),
    OPAQUE("collections.defaultdict"),
    OPAQUE("collections.Counter"),
    OPAQUE("__builtin__.set"),
    OPAQUE("builtins.set"),
    OPAQUE("__builtin__.dict"),
    OPAQUE("builtins.dict"),
    OPAQUE("__builtin__.complex"),
    OPAQUE("builtins.complex"),
    OPAQUE("pathlib.PosixPath"),
    OPAQUE("pathlib.WindowsPath"),
    OPAQUE("datetime.datetime"),
    OPAQUE("datetime.timedelta"),
    OPAQUE("torch.Size"),
    OPAQUE("torch.device"),
    OPAQUE("torch.float32"),
    OPAQUE("torch.float16"),
    OPAQUE("torch.bfloat16"),
    OPAQUE("torch.float64"),
    OPAQUE("torch.int64"),

    REFUSED("torch.ComplexFloatStorage", COMPLEX),
    REFUSED("torch.ComplexDoubleStorage", COMPLEX),
    REFUSED("torch.ComplexHalfStorage", COMPLEX),
    REFUSED("torch.QInt8Storage", QUANTIZED),
    REFUSED("torch.QUInt8Storage", QUANTIZED),
    REFUSED("torch.QInt32Storage", QUANTIZED),
    REFUSED("torch.QUInt4x2Storage", QUANTIZED),
    REFUSED("torch.QUInt2x4Storage", QUANTIZED),
    REFUSED("torch._utils._rebuild_qtensor", QUANTIZED),
    REFUSED("torch._utils._rebuild_sparse_tensor", SPARSE),
    REFUSED("torch._utils._rebuild_sparse_csr_tensor", SPARSE),
    REFUSED("torch._utils._rebuild_tensor_v3", UNTYPED),
    REFUSED("torch.storage.UntypedStorage", UNTYPED),
    REFUSED("torch._utils._rebuild_meta_tensor_no_storage",
            "the tensor was saved without its data, on the meta device"),
    REFUSED("torch.nn.modules.container.Sequential", MODULE),
    REFUSED("torch.nn.modules.linear.Linear", MODULE),
};

const cv_pickle_global *cv_pickle_global_find(const char *module, size_t n_module, const char *name,
                                              size_t n_name)
{
    for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++) {
        const char *full = globals[i].name;
        if (strlen(full) == n_module + 1 + n_name && memcmp(full, module, n_module) == 0 &&
            full[n_module] == '.' && memcmp(full + n_module + 1, name, n_name) == 0)
            return &globals[i];
    }
    return NULL;
}
