# Included by scripts/bootstrap.sh when it compiles llama.cpp (CMAKE_PROJECT_llama_cpp_INCLUDE).
#
# llama-cpp-python always builds and installs `llama-common`, the library of llama.cpp's command-line programs, which the
# binding never loads. It becomes an empty library here, so that the install finds its file.
#
# Most of the time goes into `llama`, which builds the graphs of 150 architectures: its models are compiled twenty at a time, and all of
# it with -O1. The arithmetic is in `ggml`, which is compiled as it always was.
function(notifyr_compile_less)
    if(NOT TARGET llama-common)
        return()
    endif()
    file(WRITE "${CMAKE_BINARY_DIR}/left_out.cpp" "extern \"C\" int llama_common_left_out(void) { return 1; }\n")
    set_target_properties(llama-common PROPERTIES
        SOURCES "${CMAKE_BINARY_DIR}/left_out.cpp" LINK_LIBRARIES "" INTERFACE_LINK_LIBRARIES "")
    foreach(target llama-common-base cpp-httplib)
        if(TARGET ${target})
            set_target_properties(${target} PROPERTIES EXCLUDE_FROM_ALL TRUE)
        endif()
    endforeach()
    get_target_property(sources llama SOURCES)
    foreach(source ${sources})
        if(NOT source MATCHES "models/")
            set_source_files_properties("${source}" TARGET_DIRECTORY llama PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
        endif()
    endforeach()
    set_target_properties(llama PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 20)
    target_compile_options(llama PRIVATE -O1)
endfunction()
cmake_language(DEFER CALL notifyr_compile_less)
