# Tests: C programs over cmocka, scripts over the command, fuzz targets over their corpus, examples.
# Labels: unit kernels golden grad property hostile cli fuzz example.

if(CORVID_DATA)
  set(DATA_DIR ${CORVID_DATA})
elseif(DEFINED ENV{CORVID_TEST_DATA})
  set(DATA_DIR $ENV{CORVID_TEST_DATA})
else()
  get_filename_component(DATA_DIR ${CMAKE_CURRENT_SOURCE_DIR}/../shared/data ABSOLUTE)
endif()
set(TINY_MODEL ${DATA_DIR}/rwkv-tiny/tiny-rwkv-7v0-834K-FP32.bin)

find_package(PkgConfig REQUIRED)
pkg_check_modules(CMOCKA IMPORTED_TARGET cmocka)
if(NOT CMOCKA_FOUND)
  message(WARNING "cmocka is missing: the tests in C are left out ('make setup' installs it)")
  return()
endif()
pkg_check_modules(PCRE2 IMPORTED_TARGET libpcre2-8) # the other opinion on splitting text

# Sanitizers stop at the first finding, and say where.
set(TEST_ENVIRONMENT "CORVID_TEST_DATA=${DATA_DIR}"
    "ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1:allocator_may_return_null=1"
    "UBSAN_OPTIONS=print_stacktrace=1" "TSAN_OPTIONS=halt_on_error=1")

function(corvid_test_properties name label seconds)
  set_tests_properties(${name} PROPERTIES LABELS ${label} TIMEOUT ${seconds} SKIP_RETURN_CODE 77
                       ENVIRONMENT "${TEST_ENVIRONMENT}")
endfunction()

# ---- tests in C ----------------------------------------------------------------------------------

file(GLOB SUPPORT_SOURCES CONFIGURE_DEPENDS tests/support/*.c)
if(CORVID_KERNELS_ONLY)
  set(SUPPORT_SOURCES tests/support/support.c)
endif()
add_library(test_support STATIC ${SUPPORT_SOURCES})
corvid_common_flags(test_support)
target_include_directories(test_support PUBLIC tests/support)
target_link_libraries(test_support PUBLIC corvid_testing PkgConfig::CMOCKA Threads::Threads m)
if(NOT CORVID_KERNELS_ONLY)
  target_link_libraries(test_support PUBLIC PkgConfig::DEPS)
  if(PCRE2_FOUND)
    target_link_libraries(test_support PUBLIC PkgConfig::PCRE2)
    target_compile_definitions(test_support PUBLIC TEST_HAS_PCRE2)
  endif()
endif()

# `threaded` and `fuzzers` build only what the thread sanitizer and libFuzzer are run on.
add_custom_target(threaded)
add_custom_target(fuzzers)
set(TEST_FOLDERS unit kernels golden property hostile)
if(CORVID_KERNELS_ONLY)
  set(TEST_FOLDERS kernels)
endif()
foreach(folder ${TEST_FOLDERS})
  file(GLOB TEST_SOURCES CONFIGURE_DEPENDS tests/${folder}/test_*.c)
  foreach(source ${TEST_SOURCES})
    get_filename_component(name ${source} NAME_WE)
    add_executable(${name} ${source})
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    corvid_common_flags(${name})
    target_link_libraries(${name} PRIVATE test_support)
    add_test(NAME ${name} COMMAND ${name})
    corvid_test_properties(${name} ${folder} 900)
    if(folder STREQUAL property OR name STREQUAL test_team)
      add_dependencies(threaded ${name})
    endif()
  endforeach()
endforeach()
if(TARGET test_team)
  set_tests_properties(test_team PROPERTIES RUN_SERIAL ON) # it measures idle processor time
endif()
if(CORVID_KERNELS_ONLY)
  return()
endif()

# ---- gradients, in double ------------------------------------------------------------------------

# The ops and the plain kernels once more with another meaning of `float`: central differences tell
# a wrong gradient from a rounded one only in double.
file(GLOB DOUBLE_SOURCES CONFIGURE_DEPENDS src/ops/*.c)
add_library(corvid_double STATIC EXCLUDE_FROM_ALL ${DOUBLE_SOURCES} src/kernels/ref.c)
target_compile_definitions(corvid_double PUBLIC CV_DOUBLE float=double expf=exp sqrtf=sqrt
                           tanhf=tanh fmaf=fma fmaxf=fmax fabsf=fabs logf=log)
corvid_common_flags(corvid_double)
target_compile_options(corvid_double PUBLIC -Wno-double-promotion -Wno-conversion -Wno-array-bounds
                       $<$<C_COMPILER_ID:GNU>:-Wno-stringop-overread>)
target_include_directories(corvid_double PUBLIC include src tests/support)
file(GLOB GRAD_SOURCES CONFIGURE_DEPENDS tests/grad/test_*.c)
foreach(source ${GRAD_SOURCES})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  corvid_common_flags(${name})
  target_compile_options(${name} PRIVATE -Wno-double-promotion -Wno-conversion)
  target_link_libraries(${name} PRIVATE corvid_double test_support PkgConfig::CMOCKA m)
  add_test(NAME ${name} COMMAND ${name})
  corvid_test_properties(${name} grad 300)
endforeach()

# ---- scripts over the command --------------------------------------------------------------------

file(GLOB SCRIPTS CONFIGURE_DEPENDS tests/cli/*.sh)
foreach(script ${SCRIPTS})
  get_filename_component(name ${script} NAME_WE)
  if(TARGET corvid)
    add_test(NAME cli_${name} COMMAND sh ${script} $<TARGET_FILE:corvid> ${DATA_DIR}
             WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR})
    corvid_test_properties(cli_${name} cli 300)
  endif()
endforeach()

# ---- fuzz targets: libFuzzer, or a replay of the saved corpus ------------------------------------

file(GLOB FUZZ_SOURCES CONFIGURE_DEPENDS tests/fuzz/fuzz_*.c)
file(GLOB FUZZ_FOLDERS CONFIGURE_DEPENDS LIST_DIRECTORIES ON tests/fuzz/corpus/*)
foreach(source ${FUZZ_SOURCES})
  get_filename_component(name ${source} NAME_WE)
  string(REGEX REPLACE "^fuzz_" "" topic ${name})
  add_executable(${name} ${source})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
  corvid_common_flags(${name})
  add_dependencies(fuzzers ${name})
  # A target's entry point has no prototype of its own: libFuzzer's is in C++ headers only.
  target_compile_options(${name} PRIVATE -Wno-missing-prototypes)
  target_link_libraries(${name} PRIVATE corvid_testing PkgConfig::DEPS Threads::Threads m)
  if(CORVID_FUZZ)
    target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    continue()
  endif()
  target_sources(${name} PRIVATE tests/fuzz/replay_main.c)
  foreach(folder ${name} ${topic})
    set(corpus ${CMAKE_CURRENT_SOURCE_DIR}/tests/fuzz/corpus/${folder})
    if(IS_DIRECTORY ${corpus})
      add_test(NAME ${name} COMMAND ${name} ${corpus})
      corvid_test_properties(${name} fuzz 300)
      break()
    endif()
  endforeach()
endforeach()
if(CORVID_FUZZ)
  target_compile_options(corvid_testing PRIVATE -fsanitize=fuzzer-no-link)
endif()

# ---- examples: public headers only ---------------------------------------------------------------

file(GLOB EXAMPLES CONFIGURE_DEPENDS examples/*.c)
foreach(source ${EXAMPLES})
  get_filename_component(name ${source} NAME_WE)
  add_executable(example_${name} ${source})
  set_target_properties(example_${name} PROPERTIES OUTPUT_NAME ${name} RUNTIME_OUTPUT_DIRECTORY
                        ${CMAKE_BINARY_DIR}/examples)
  corvid_common_flags(example_${name})
  target_link_libraries(example_${name} PRIVATE corvid_static PkgConfig::DEPS Threads::Threads m)
  if(EXISTS ${TINY_MODEL})
    add_test(NAME example_${name} COMMAND example_${name} ${TINY_MODEL})
  else()
    add_test(NAME example_${name} COMMAND sh -c "echo 'SKIP: no ${TINY_MODEL}'; exit 77")
  endif()
  corvid_test_properties(example_${name} example 120)
endforeach()

# ---- each public header compiles alone, in C11 and as C++17 --------------------------------------

file(GLOB HEADERS CONFIGURE_DEPENDS include/*.h)
find_program(CXX_COMPILER NAMES c++ g++ clang++)
foreach(header ${HEADERS})
  get_filename_component(name ${header} NAME_WE)
  add_test(NAME header_${name}_c COMMAND ${CMAKE_C_COMPILER} -std=c11 -Wall -Wextra -Wpedantic
           -Werror -fsyntax-only -x c ${header})
  corvid_test_properties(header_${name}_c unit 60)
  if(CXX_COMPILER)
    add_test(NAME header_${name}_cpp COMMAND ${CXX_COMPILER} -std=c++17 -Wall -Wextra -Wpedantic
             -Werror -fsyntax-only -x c++ ${header})
    corvid_test_properties(header_${name}_cpp unit 60)
  endif()
endforeach()
