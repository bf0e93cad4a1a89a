# Included by scripts/bootstrap.sh when it compiles llama.cpp (CMAKE_PROJECT_llama_cpp_INCLUDE).
#
# llama-cpp-python always builds and installs `llama-common`, the library of llama.cpp's command-line programs, which the
# binding never loads. It becomes an empty library here, so that the install finds its file.
function(notifyr_leave_out_common)
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
endfunction()
cmake_language(DEFER CALL notifyr_leave_out_common)
