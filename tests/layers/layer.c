/* What each layer is linked into, whole: that it links, and loads, is the test. */
int main(void)
{
    return 0;
}
